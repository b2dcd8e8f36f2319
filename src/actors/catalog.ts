import { stat } from 'node:fs/promises';
import type { CatalogEntry, CatalogStore, FileStamp } from '../catalog/catalog-store.ts';
import type { FileHasher } from '../catalog/file-hasher.ts';
import { judge, untrustedModel, type TrustDemands } from '../catalog/trust.ts';
import { catalogIdOf, isCatalogId, parseModel } from '../config/model.ts';
import type { CatalogModel, CatalogPage, ModelState } from '../contract/generated/types.ts';
import { parseCatalogModel } from '../contract/validate.ts';
import { failure, TaskchartError, type Failure } from '../errors.ts';
import { modelMachine, type ModelEvent, type ModelFact } from '../machines/model.ts';
import { createRecordStepper } from '../machines/record-step.ts';
import type { ModelGate } from './model-gate.ts';
import type { Observation } from './observation.ts';

/** Files of models as whoever fetches them knows them. */
export interface ModelFiles {
  /** Where the file of a reference is, without asking anybody else; undefined where it is not here. */
  locate(model_ref: string): Promise<string | undefined>;
  /** Deletes what was fetched by a reference; `kept` is what is in use, or was never fetched. */
  remove(model_ref: string): Promise<'removed' | 'kept' | 'none'>;
}

export interface CatalogOptions {
  store: CatalogStore;
  /** What the configuration demands of every model. */
  trust: TrustDemands;
  files: ModelFiles;
  hasher: FileHasher;
  /** Epoch milliseconds. */
  wall: () => number;
  /** How long running tasks of a model go on that is retired without a deadline, in milliseconds. */
  drain_ms: number;
  tell: (observation: Observation) => void;
  /** Pools that serve it have to drain and unload it. */
  retired: (model: { id: string }, deadline_ms: number) => void;
  /** Pools that have unloaded it may load it again. */
  activated: (model: { id: string }) => void;
}

type VerificationResult = 'pass' | 'warn' | 'fail';

/** What a comparison has found; `reason` is one of few words, for metrics. */
interface Finding {
  result: VerificationResult;
  reason: 'digest_match' | 'digest_mismatch' | 'no_digest' | 'absent' | 'directory' | 'unreadable';
  path?: string;
  file?: FileStamp;
}

const stepper = createRecordStepper<typeof modelMachine, ModelFact>(modelMachine, undefined as never);

/** The models that are known here: what they are, whether they are trusted, and whether new work may use them. */
export class Catalog implements ModelGate {
  readonly #options: CatalogOptions;
  readonly #verifying = new Map<string, Promise<VerificationResult>>();
  #isClosed = false;

  constructor(options: CatalogOptions) {
    this.#options = options;
  }

  /** @throws TaskchartError NOT_FOUND */
  async get(id: string): Promise<CatalogModel> {
    return modelOf(await this.#known(id));
  }

  /**
   * One page, by id.
   * @throws TaskchartError INVALID_PARAMS for a cursor that no page has given
   */
  async list({ limit, cursor }: { limit: number; cursor?: string | undefined }): Promise<CatalogPage> {
    const { store } = this.#options;
    await store.refresh();
    const after = cursor === undefined ? undefined : idIn(cursor);
    const rest = after === undefined ? store.entries() : store.entries().filter(({ id }) => id > after);
    const page = rest.slice(0, limit);
    const last = page.at(-1);
    return {
      models: page.map(modelOf),
      ...(last && rest.length > limit ? { next_cursor: Buffer.from(last.id).toString('base64url') } : {}),
    };
  }

  /**
   * Adds a model, or replaces the entry of its name, which keeps its state.
   * @param model a {@link CatalogModel}; it need not have been checked
   * @param trust what is demanded beside the configuration
   * @throws TaskchartError INVALID_PARAMS naming the field, UNTRUSTED_ARTIFACT under strict trust
   */
  async add(model: unknown, trust?: TrustDemands): Promise<CatalogModel> {
    const given = parseCatalogModel(model);
    const { id, digest } = given;
    const mistake = mistakeOf(given);
    if (mistake) throw new TaskchartError(failure('INVALID_PARAMS', mistake));
    const finding = judge(given, this.#demandsOf(given, trust));
    if (finding.isRefused) throw new TaskchartError(untrustedModel(id, finding));
    const { store, tell } = this.#options;
    const { state: _state, created_ms: _created, ...claims } = given;
    const { verification: _verification, last_verified_ms: _verified, local_path: _path, ...stated } = claims;
    const entry = await store.change(id, (current) => ({
      ...(current?.digest === digest ? whatIsHere(current) : {}),
      ...stated,
      state: current?.state ?? 'Active',
      created_ms: current?.created_ms ?? this.now(),
    }));
    tell({ type: 'model.ingested', model_id: id, origin: 'caller', warnings: finding.shortcomings });
    return modelOf(entry as CatalogEntry);
  }

  /**
   * Removes an entry, and the files that were fetched for it as far as that succeeds; what became of them is told.
   * @throws TaskchartError NOT_FOUND
   */
  async remove(id: string): Promise<void> {
    const { store, files, tell } = this.#options;
    const entry = await this.#known(id);
    await store.change(id, () => undefined);
    const target = store.withDigest(entry.digest).length > 0 ? undefined : loadableOf(entry);
    let left: 'removed' | 'kept' | 'none' | 'failed' = target === undefined ? 'kept' : 'none';
    if (target !== undefined) left = await files.remove(target).catch(() => 'failed' as const);
    tell({ type: 'model.removed', model_id: id, files: left });
  }

  /**
   * Begins to compare a model's file with its digest; one that is being compared is not read twice.
   * @returns `finished`, which resolves once the outcome is kept
   * @throws TaskchartError NOT_FOUND
   */
  async verify(id: string): Promise<{ finished: Promise<VerificationResult> }> {
    const entry = await this.#known(id);
    let finished = this.#verifying.get(id);
    if (!finished) {
      finished = this.#verify(entry).finally(() => this.#verifying.delete(id));
      // It is told what came of it; nobody has to wait for that.
      finished.catch(() => undefined);
      this.#verifying.set(id, finished);
    }
    return { finished };
  }

  /**
   * Retires a model or takes it back; answers once that is kept.
   * @param deadline_ms how long running tasks of a retired model may go on
   * @throws TaskchartError NOT_FOUND
   */
  async setState(id: string, state: ModelState, deadline_ms = this.#options.drain_ms): Promise<void> {
    const { store, tell, retired, activated } = this.#options;
    await this.#known(id);
    const event: ModelEvent =
      state === 'Retired' ? { type: 'model.retire', deadline_ms } : { type: 'model.activate' };
    let facts: readonly ModelFact[] = [];
    const entry = await store.change(id, (current) => {
      if (!current) return undefined;
      const after = stepper.step({ state: current.state, context: {} }, event);
      facts = after.facts;
      return after.state === current.state ? current : { ...current, state: after.state };
    });
    if (!entry) throw unknownModel(id);
    tell({ type: 'model.moved', model_id: id, state: entry.state, deadline_ms });
    for (const fact of facts)
      if (fact.type === 'pools.drain') retired({ id }, fact.deadline_ms);
      else activated({ id });
  }

  refusalOf(model_ref: string): Failure | undefined {
    const entries = this.#meant(model_ref);
    const id = catalogIdOf(model_ref);
    const [first] = entries;
    if (!first) return this.#distrust({ id }, [this.#options.trust]);
    const usable = entries.find(({ state }) => state === 'Active');
    if (!usable)
      return failure(
        'MODEL_DEPRECATED',
        `model_ref: "${id}" is retired and takes no new work; use another model`,
      );
    if (usable.verification === 'fail')
      return failure(
        'UNTRUSTED_ARTIFACT',
        `model "${id}": its file was not what its digest says when it was last verified; verify it again`,
      );
    return this.#distrust(usable, this.#demandsOf(usable));
  }

  isSame(a: string, b: string): boolean {
    if (catalogIdOf(a) === catalogIdOf(b)) return true;
    const digest = this.#meant(a)[0]?.digest;
    return digest !== undefined && this.#meant(b)[0]?.digest === digest;
  }

  states(): Iterable<{ id: string; state: ModelState }> {
    return this.#options.store.entries();
  }

  /** The entry that a reference means: of several with one digest one that new work may use. */
  find(model_ref: string): CatalogEntry | undefined {
    const entries = this.#meant(model_ref);
    return entries.find(({ state }) => state === 'Active') ?? entries[0];
  }

  /** Whether the file at an entry's path is the one that was held against its digest. */
  async isUntouched({ local_path, file }: CatalogEntry): Promise<boolean> {
    if (local_path === undefined || file === undefined) return false;
    const now = await stat(local_path).catch(() => undefined);
    return now?.size === file.size_bytes && now.mtimeMs === file.mtime_ms;
  }

  /** `sha256:<hex>` of a file, read in a thread. */
  digestOf(path: string): Promise<string> {
    return this.#options.hasher.digestOf(path);
  }

  /** Looks whether other processes have changed it. */
  refresh(): Promise<void> {
    return this.#options.store.refresh();
  }

  /** Epoch milliseconds. */
  now(): number {
    return Math.floor(this.#options.wall());
  }

  /** Notes what a provisioning has found: a model that is new here is Active. */
  async note(id: string, found: Omit<CatalogEntry, 'id' | 'state' | 'created_ms'>): Promise<void> {
    const { store, tell } = this.#options;
    let isNew = false;
    await store.change(id, (current) => {
      isNew = current === undefined;
      if (!current) return { id, state: 'Active', created_ms: this.now(), ...found };
      if (current.digest !== found.digest) return current;
      // What was stated by whoever added it stays; a start that finds nothing new writes nothing.
      const here = { ...whatIsHere(current), ...whatIsHere({ ...current, ...found }) };
      const isKnown =
        current.local_path === here.local_path &&
        current.last_verified_ms === here.last_verified_ms &&
        current.file?.mtime_ms === here.file?.mtime_ms;
      return isKnown ? current : { ...current, ...here };
    });
    if (isNew) tell({ type: 'model.ingested', model_id: id, origin: 'provisioning', warnings: [] });
  }

  /** Ends comparisons that are under way; their outcome is not kept. Safe to repeat. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#options.hasher.close();
    await Promise.allSettled(this.#verifying.values());
    await this.#options.store.close();
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  tell(observation: Observation): void {
    this.#options.tell(observation);
  }

  /** @throws TaskchartError NOT_FOUND */
  async #known(id: string): Promise<CatalogEntry> {
    const { store } = this.#options;
    await store.refresh();
    const entry = store.get(id);
    if (!entry) throw unknownModel(id);
    return entry;
  }

  #meant(model_ref: string): readonly CatalogEntry[] {
    const { store } = this.#options;
    const id = catalogIdOf(model_ref);
    const named = store.get(id);
    return named ? [named] : store.withDigest(id);
  }

  #demandsOf({ trust_policy }: Pick<CatalogModel, 'trust_policy'>, more?: TrustDemands): TrustDemands[] {
    return [this.#options.trust, ...(trust_policy ? [trust_policy] : []), ...(more ? [more] : [])];
  }

  #distrust(model: Pick<CatalogEntry, 'id'>, demands: readonly TrustDemands[]): Failure | undefined {
    // Asked for every task: what permissive would only warn about is not even looked at.
    if (demands.every(({ mode }) => mode !== 'strict')) return undefined;
    const finding = judge(model, demands);
    return finding.isRefused ? untrustedModel(model.id, finding) : undefined;
  }

  async #verify(entry: CatalogEntry): Promise<VerificationResult> {
    const { store, tell } = this.#options;
    const { id, digest } = entry;
    const { result, reason, path, file } = await this.#compare(entry);
    // A comparison that was cut short says nothing of the file.
    if (this.#isClosed) return result;
    await store.change(id, (current) => {
      if (current?.digest !== digest) return current;
      const { file: _before, ...rest } = current;
      return {
        ...rest,
        verification: result,
        last_verified_ms: this.now(),
        ...(path === undefined ? {} : { local_path: path }),
        ...(file === undefined ? {} : { file }),
      };
    });
    tell({ type: 'model.verified', model_id: id, result, reason });
    return result;
  }

  async #compare(entry: CatalogEntry): Promise<Finding> {
    const { files, hasher } = this.#options;
    const target = loadableOf(entry);
    const located = target === undefined ? undefined : await files.locate(target).catch(() => undefined);
    const path = entry.local_path ?? located;
    if (path === undefined || path === '') return { result: 'warn', reason: 'absent' };
    try {
      const found = await stat(path);
      if (!found.isFile()) return { result: 'fail', reason: 'directory' };
      if ((await hasher.digestOf(path)) !== entry.digest)
        return { result: 'fail', reason: 'digest_mismatch' };
      const file = { size_bytes: found.size, mtime_ms: found.mtimeMs };
      return { result: 'pass', reason: 'digest_match', path, file };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { result: 'warn', reason: 'absent' };
      return { result: 'fail', reason: 'unreadable' };
    }
  }
}

/** The reference by which an entry's file can be loaded; undefined where the entry tells none. */
export function loadableOf({ id, source_url, local_path }: CatalogEntry): string | undefined {
  const references = [source_url, id, local_path === undefined ? undefined : `file:${local_path}`];
  return references.find((reference) => {
    if (reference === undefined) return false;
    const { kind } = parseModel(reference);
    return kind !== 'mistake' && kind !== 'catalog';
  });
}

/** What is known of an entry's file, as against what was stated. */
function whatIsHere({
  local_path,
  verification,
  last_verified_ms,
  file,
}: CatalogEntry): Partial<CatalogEntry> {
  return {
    ...(local_path === undefined ? {} : { local_path }),
    ...(verification === undefined ? {} : { verification }),
    ...(last_verified_ms === undefined ? {} : { last_verified_ms }),
    ...(file === undefined ? {} : { file }),
  };
}

function modelOf({ file: _file, ...model }: CatalogEntry): CatalogModel {
  return model;
}

function mistakeOf({ id, source_url }: CatalogModel): string | undefined {
  if (!isCatalogId(id))
    return 'id: must be a name of at most 512 characters, without control characters, backslashes and parts that are . or ..';
  if (id.startsWith('sha256:') || id.startsWith('catalog:'))
    return 'id: must not begin with sha256: or catalog:, which are ways to name a model';
  const url = source_url === undefined ? undefined : URL.parse(source_url);
  // Whatever is kept here is shown to everybody who asks.
  if (url && (url.username !== '' || url.password !== ''))
    return 'source_url: must be without user name and password';
  return undefined;
}

function idIn(cursor: string): string {
  const id = Buffer.from(cursor, 'base64url').toString();
  if (isCatalogId(id) && Buffer.from(id).toString('base64url') === cursor) return id;
  throw new TaskchartError(failure('INVALID_PARAMS', 'cursor: must be the next_cursor of an earlier page'));
}

function unknownModel(id: string): TaskchartError {
  const name = id.length > 64 ? `${id.slice(0, 64)}…` : id;
  return new TaskchartError(failure('NOT_FOUND', `model id: there is no model "${name}" in the catalog`));
}
