import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';

const SRC = fileURLToPath(new URL('../src', import.meta.url));
const MAX_LINES = 400;
const PORT_SPEAKERS = new Set(['models/source.ts', 'provisioning/step.ts']);

/** From the ground up; a file imports from its own floor and from those below. First match counts. */
const FLOORS: [floor: string, files: RegExp][] = [
  ['cli', /^cli\//],
  ['faces', /^(index|embed|storage|mount|server|blueprint|engine-settings|pool-plan)\.ts$|^http\//],
  ['watchers', /^observe\/(narrate|metrics|replica-gauges)\.ts$/],
  ['actors', /^actors\//],
  ['decisions', /^(machines|scheduling)\//],
  ['adapters', /^(engines|models|provisioning|store|streams|sqlite|artifacts|catalog|threads|observe)\//],
  ['client', /^client\//],
  ['ground', /^(contract|config)\/|^(config|errors|clock|ids)\.ts$/],
];

interface Source {
  file: string;
  text: string;
  imports: { from: string; isTypeOnly: boolean }[];
}

const sources: Source[] = readdirSync(SRC, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && /\.[jt]s$/.test(entry.name))
  .map((entry) => {
    const file = relative(SRC, join(entry.parentPath, entry.name)).replaceAll('\\', '/');
    const text = readFileSync(join(SRC, file), 'utf8');
    return { file, text, imports: importsOf(text) };
  });
const written = sources.filter(({ file }) => !file.includes('/generated/'));

function importsOf(text: string): Source['imports'] {
  const found: Source['imports'] = [];
  for (const [, clause = '', from = ''] of text.matchAll(
    /^(?:import|export)\s+(?:((?:type\s+)?[\w*{][^;'"=]*?)\s+from\s+)?'([^']+)';/gm,
  )) {
    const names = /\{([^}]*)\}/.exec(clause)?.[1];
    const isEachType = names
      ?.split(',')
      .filter((name) => name.trim() !== '')
      .every((name) => name.trim().startsWith('type '));
    found.push({ from, isTypeOnly: clause.startsWith('type ') || (isEachType ?? false) });
  }
  for (const [, from = ''] of text.matchAll(/\bimport\('([^']+)'\)/g))
    found.push({ from, isTypeOnly: false });
  return found;
}

/** The imported file of ours, or undefined for a package. */
function target({ file }: Source, from: string): string | undefined {
  return from.startsWith('.') ? join(dirname(file), from).replaceAll('\\', '/') : undefined;
}

function floorOf(file: string): number {
  return FLOORS.findIndex(([, files]) => files.test(file));
}

/** Comments speak of what code must not do. */
function codeOf({ text }: Source): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/^\s*\/\/.*$/gm, '');
}

function findings(files: readonly Source[], find: (source: Source) => string[]): string[] {
  return files.flatMap((source) => find(source).map((what) => `${source.file}: ${what}`));
}

function uses(pattern: RegExp): (source: Source) => string[] {
  return (source) => codeOf(source).match(pattern) ?? [];
}

const under = (...folders: string[]): Source[] =>
  written.filter(({ file }) => folders.some((folder) => file.startsWith(`${folder}/`)));

test('every file stands on a floor', (t) => {
  t.true(sources.length > 50);
  t.deepEqual(
    written.filter(({ file }) => floorOf(file) < 0).map(({ file }) => file),
    [],
  );
});

test('imports only go down', (t) => {
  t.deepEqual(
    findings(written, (source) =>
      source.imports.flatMap(({ from, isTypeOnly }) => {
        const to = target(source, from);
        if (to === undefined || floorOf(to) >= floorOf(source.file)) return [];
        // An adapter speaks the types of the port that it implements.
        if (isTypeOnly && PORT_SPEAKERS.has(source.file) && to === 'machines/provisioner.ts') return [];
        return [`goes up to ${to}`];
      }),
    ),
    [],
  );
});

test('machines and scheduling touch nothing of the world: only types come from engines, nothing from others', (t) => {
  const allowed = /^(machines|scheduling|contract)\/|^errors\.ts$/;
  t.deepEqual(
    findings(under('machines', 'scheduling'), (source) =>
      source.imports.flatMap(({ from, isTypeOnly }) => {
        const to = target(source, from);
        if (to === undefined) return from === 'xstate' && source.file.startsWith('machines/') ? [] : [from];
        return allowed.test(to) || (to === 'engines/engine.ts' && isTypeOnly) ? [] : [to];
      }),
    ),
    [],
  );
});

test('actors know engines, stores and model sources by their interfaces only', (t) => {
  const interfaces =
    /^(engines\/engine|store\/store|artifacts\/artifact-store|catalog\/(catalog-store|file-hasher)|threads\/thread-pool|streams\/task-log)\.ts$/;
  const adapters = /^(engines|models|provisioning|store|sqlite|artifacts|catalog|threads|streams)\//;
  t.deepEqual(
    findings(under('actors'), (source) =>
      source.imports.flatMap(({ from, isTypeOnly }) => {
        const to = target(source, from);
        if (to === undefined || !adapters.test(to)) return [];
        return /^(streams\/(log-writer|read-log)|artifacts\/artifact|catalog\/trust)\.ts$/.test(to) ||
          (interfaces.test(to) && isTypeOnly)
          ? []
          : [to];
      }),
    ),
    [],
  );
});

test('the client runs in a browser: it knows the wire and the errors, nothing of Node, and only the command line knows it', (t) => {
  const allowed = /^client\/|^errors\.ts$|^contract\/generated\/types\.ts$/;
  t.deepEqual(
    findings(written, ({ file, imports }) =>
      imports.flatMap(({ from }) => {
        const to = target({ file, text: '', imports }, from);
        if (file.startsWith('client/')) return to !== undefined && allowed.test(to) ? [] : [from];
        return to?.startsWith('client/') && !file.startsWith('cli/') ? [from] : [];
      }),
    ),
    [],
  );
  t.deepEqual(
    findings(under('client'), uses(/\b(Buffer|process|EventSource|setImmediate)\b|\bNodeJS\./g)),
    [],
  );
});

test('only the command line reads arguments and environment, and ends the process', (t) => {
  t.deepEqual(
    findings(
      written.filter(({ file }) => !file.startsWith('cli/')),
      uses(/process\.(env|argv|exitCode)\b/g),
    ),
    [],
  );
  t.deepEqual(
    findings(
      written.filter(({ file }) => !file.startsWith('cli/') && file !== 'engines/llamacpp/embedded-child.ts'),
      uses(/process\.exit\b/g),
    ),
    [],
  );
});

test('time and chance come to machines, scheduling and actors by ports', (t) => {
  t.deepEqual(
    findings(
      under('machines', 'scheduling', 'actors'),
      uses(
        /(?<![.\w])(setTimeout|setInterval|setImmediate)\(|\bDate\.now\b|\bnew Date\b|\bperformance\.now\b|\bMath\.random\b|\bAbortSignal\.timeout\b/g,
      ),
    ),
    [],
  );
});

test('nothing outside the HTTP face knows Koa', (t) => {
  t.deepEqual(
    findings(
      written.filter(({ file }) => !file.startsWith('http/')),
      ({ imports }) => imports.map(({ from }) => from).filter((from) => from.startsWith('koa')),
    ),
    [],
  );
});

test(`no file is longer than ${MAX_LINES} lines`, (t) => {
  t.deepEqual(
    findings(written, ({ text }) => {
      const lines = text.split('\n').length - 1;
      return lines > MAX_LINES ? [`${lines} lines`] : [];
    }),
    [],
  );
});

test('every file and folder name is kebab-case', (t) => {
  t.deepEqual(
    sources
      .map(({ file }) => file)
      .filter((file) => !/^([a-z0-9]+(-[a-z0-9]+)*\/)*[a-z0-9]+(-[a-z0-9]+)*(\.d)?\.[jt]s$/.test(file)),
    [],
  );
});
