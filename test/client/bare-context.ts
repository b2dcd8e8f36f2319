/**
 * Runs the compiled client where there is nothing of Node: `node --experimental-vm-modules bare-context.ts <index.js>
 * <url>`. Prints the text of a task that it posts to the daemon at the URL.
 */
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { createContext, SourceTextModule, type Module } from 'node:vm';
import type { Client, ClientOptions } from '../../src/client/index.ts';

const [entry = '', base_url = ''] = process.argv.slice(2);

const context = createContext({
  fetch,
  AbortController,
  AbortSignal,
  TextDecoder,
  ReadableStream,
  URL,
  crypto,
  setTimeout,
  clearTimeout,
  DOMException,
});

const modules = new Map<string, SourceTextModule>();
function load(url: URL): SourceTextModule {
  const known = modules.get(url.href);
  if (known) return known;
  const module = new SourceTextModule(readFileSync(url, 'utf8'), { context, identifier: url.href });
  modules.set(url.href, module);
  return module;
}

const client = load(pathToFileURL(entry));
await client.link((specifier, referrer): Module => {
  if (!specifier.startsWith('.')) throw new Error(`the client imports ${specifier}`);
  return load(new URL(specifier, referrer.identifier));
});
await client.evaluate();

const { createClient } = client.namespace as { createClient: (options: ClientOptions) => Client };
const text = await createClient({ base_url })
  .run({
    workload: 'completion',
    engine: 'llamacpp',
    model_ref: 'storyteller',
    ctx: 512,
    priority: 'interactive',
    max_tokens: 20,
    deadline_ms: 60_000,
    prompt: 'Once upon a time',
  })
  .text();
process.stdout.write(JSON.stringify({ text, files: modules.size }));
