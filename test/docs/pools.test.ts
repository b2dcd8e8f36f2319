import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { loadConfig } from '../../src/config.ts';
import { parseDrain, parsePurge, parseReload } from '../../src/contract/validate.ts';

const PAGE = readFileSync(new URL('../../docs/pools.md', import.meta.url), 'utf8');
const PARSERS: Readonly<Record<string, (body: unknown) => unknown>> = {
  reload: parseReload,
  drain: parseDrain,
  purge: parsePurge,
};

test('the settings of the page are accepted as they stand', (t) => {
  const [, settings = ''] = /```yaml\n([\s\S]*?)```/.exec(PAGE) ?? [];
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-docs-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'taskchart.yaml');
  writeFileSync(file, settings);
  t.is(loadConfig({ file }).pools.length, 3);
});

test('each call of the page is one of the contract, with a body that it takes', (t) => {
  const calls = [...PAGE.matchAll(/\/v1\/pools\/small\/(\w+)\S* -d '(.*)'/g)];
  t.deepEqual(
    calls.map(([, verb]) => verb),
    ['reload', 'drain', 'purge'],
  );
  for (const [, verb = '', body = ''] of calls) t.notThrows(() => PARSERS[verb]?.(JSON.parse(body)), verb);
});
