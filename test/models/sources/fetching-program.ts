import { ModelLibrary } from '../../../src/models/library.ts';
import { provisionWith } from './rig.ts';

/** Fetches one model, tells each step on stdout, and uses it until stdin ends. */
const [reference = '', cache_dir = '', endpoint = ''] = process.argv.slice(2);
const library = new ModelLibrary({
  cache_dir,
  provenance_file: `${cache_dir}/../provenance.jsonl`,
  policy: { offline: false, auto_fetch: true, allowlist: [] },
  hub: { endpoint },
  reserve_bytes: 0,
});
const model = await provisionWith(library, reference, {}, ({ phase, bytes_done }) =>
  process.stdout.write(`${phase} ${bytes_done}\n`),
);
process.stdout.write(`${JSON.stringify(model)}\n`);
process.stdin.resume();
process.stdin.on('end', () => void library.close());
