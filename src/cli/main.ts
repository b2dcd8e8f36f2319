#!/usr/bin/env node
import { enableCompileCache, getCompileCacheDir } from 'node:module';

// Koa and its middleware check less where this is set; whoever develops against the daemon can set it otherwise.
process.env['NODE_ENV'] ??= 'production';

// Compiled code of the last start is used again, which halves the time until the daemon listens. Only modules that are
// imported after this call profit, so everything else is.
enableCompileCache();
// The threads begin with a program of their own, and look for the same here.
const folder = getCompileCacheDir();
if (folder !== undefined) process.env['NODE_COMPILE_CACHE'] ??= folder;

const { main } = await import('./commands.ts');
await main();
