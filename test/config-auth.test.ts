import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { inspect } from 'node:util';
import test from 'ava';
import { loadConfig, type ConfigInput } from '../src/config.ts';

const TOKEN = 'correct-horse-battery';
const folder = mkdtempSync(join(tmpdir(), 'taskchart-auth-'));
test.after.always(() => rmSync(folder, { recursive: true }));

function refusal(overrides: ConfigInput, env = {}): string {
  try {
    loadConfig({ overrides, env });
  } catch (thrown) {
    return (thrown as Error).message;
  }
  return 'accepted';
}

test('without a word there is no token, nothing is optional, and files that announce engines are looked for', (t) => {
  const { auth, handoff, runtime } = loadConfig();
  t.deepEqual(auth, { optional: false, trust_proxy: false });
  t.deepEqual(handoff, { dir: join(runtime.dir, 'engines'), poll_ms: 1000 });
  t.is(loadConfig({ overrides: { handoff: { dir: 'x' } } }).handoff.dir, resolve('x'));
});

test('the token comes from the environment, from a variable that the file names, or from a file', (t) => {
  const file = join(folder, 'taskchart.yaml');
  writeFileSync(join(folder, 'token'), `${TOKEN}\n`);
  writeFileSync(file, 'auth: { token_file: token, worker_token: "${WORKERS}" }');
  const env = { WORKERS: ' staple-of-the-workers\n' };
  const { auth } = loadConfig({ file, env });
  t.is(auth.token, TOKEN);
  t.is(auth.worker_token, 'staple-of-the-workers');
  t.is(loadConfig({ env: { TASKCHART_AUTH__TOKEN: TOKEN } }).auth.token, TOKEN);
  t.is(loadConfig({ overrides: { auth: { token: '${IT}' } }, env: { IT: TOKEN } }).auth.token, TOKEN);
});

test('it is not shown by whoever prints the configuration', (t) => {
  const config = loadConfig({ overrides: { auth: { token: TOKEN, worker_token: `${TOKEN}-2` } } });
  t.false(JSON.stringify(config).includes(TOKEN));
  t.false(inspect(config, { depth: null }).includes(TOKEN));
  t.throws(() => ((config.auth as { token?: string }).token = 'another'));
});

test('an address that others can reach is listened on with a token only, wherever that is', (t) => {
  const server = { bind_addr: '0.0.0.0:8080' };
  const said = refusal({ server });
  t.regex(said, /server\.bind_addr: must be a loopback address .* set auth\.token \(TASKCHART_AUTH__TOKEN\)/);
  t.is(refusal({ server, auth: { optional: true } }), said);
  t.is(refusal({ server, auth: { worker_token: TOKEN } }), said);
  t.is(refusal({ server }, { TASKCHART_AUTH__TOKEN: '' }), said);
  t.is(refusal({ server, auth: { token: TOKEN } }), 'accepted');
  t.is(refusal({ server }, { TASKCHART_AUTH__TOKEN: TOKEN }), 'accepted');
  writeFileSync(join(folder, 'token'), TOKEN);
  t.is(refusal({ server, auth: { token_file: join(folder, 'token') } }), 'accepted');
  for (const bind_addr of ['[::]:8080', '192.168.1.10:80', 'box.example:80'])
    t.regex(refusal({ server: { bind_addr } }), /must be a loopback address/, bind_addr);
});

const EXPECTED = '16 or more characters without blanks';
const mistakes: [title: string, auth: NonNullable<ConfigInput['auth']>, message: RegExp][] = [
  [
    'a short one',
    { token: 'hunter2-secret' },
    new RegExp(`^options: auth\\.token: must be ${EXPECTED}, .* got a string$`),
  ],
  ['one with a blank', { token: 'secret secret secret' }, new RegExp(`auth\\.token: must be ${EXPECTED}`)],
  ['a number', { token: 1234567812345678 as unknown as string }, /auth\.token: must be .*, got a number$/],
  ['a short one of engines', { worker_token: 'secret' }, /auth\.worker_token: must be/],
  [
    'a variable that is not set',
    { token: '${NOT_SET}' },
    /^options: auth\.token: the environment variable NOT_SET is not set$/,
  ],
  [
    'a short one in a variable',
    { token: '${SHORT}' },
    /^options: auth\.token: must have 16 or more characters, got 6$/,
  ],
  ['one with a blank in a variable', { token: '${BLANK}' }, /BLANK holds no key/],
  [
    'two of them',
    { token: TOKEN, token_file: 'x' },
    /^options: auth\.token_file: only goes without auth\.token$/,
  ],
  [
    'a file that is not there',
    { token_file: '/nowhere/token' },
    /^options: auth\.token_file: \/nowhere\/token cannot be read \(ENOENT\)$/,
  ],
  [
    'a file without one',
    { token_file: thisFile() },
    /token_file: .* must hold 16 or more characters without blanks$/,
  ],
];

function thisFile(): string {
  return new URL(import.meta.url).pathname;
}

for (const [title, auth, message] of mistakes)
  test(`a token is refused, and what is wrong with it named without it: ${title}`, (t) => {
    const said = refusal({ auth }, { SHORT: 'secret', BLANK: 'secret secret secret' });
    t.regex(said, message);
    t.notRegex(said, /secret/);
  });
