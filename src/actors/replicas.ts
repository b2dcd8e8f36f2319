import type { EngineProperties } from '../engines/engine.ts';
import type { ReplicaFact, UnloadCause } from '../machines/replica-protocol.ts';
import type { Replica } from './replica.ts';

export interface ReplicasOptions {
  /** Engines that this pool starts itself. */
  count: number;
  /** Slots of a replica that has not told yet. */
  slots: number;
  /** @param name of the replica within its pool, such as `r0` */
  create: (name: string) => Replica;
  /** All of them have let go of their engines. */
  unloaded: () => void;
  /** None is left. */
  stopped: () => void;
}

/** The replicas of a pool: those that it starts itself, and those that others started and have announced. */
export class Replicas {
  readonly #options: ReplicasOptions;
  readonly #own = new Map<string, Replica>();
  readonly #attached = new Map<string, Replica>();
  /** Those whose answer is awaited: to an unload, or to a stop. */
  readonly #unloading = new Set<Replica>();
  readonly #stopping = new Set<Replica>();
  readonly #detaching = new Set<Replica>();
  /** Both kinds: asked for many times in each admission, and replaced where one comes or goes. */
  #all: readonly Replica[] = [];

  constructor(options: ReplicasOptions) {
    this.#options = options;
  }

  /** In the order of their names. */
  get all(): readonly Replica[] {
    return this.#all;
  }

  get ready(): Replica[] {
    return this.all.filter(({ isReady }) => isReady);
  }

  /** How many there are, or are to be. */
  get size(): number {
    return this.#options.count + this.#attached.size;
  }

  get(id: string): Replica | undefined {
    return this.all.find((replica) => replica.id === id);
  }

  /** Of an engine that is loaded, or of the last one that was. All replicas of a pool are alike. */
  get properties(): EngineProperties | undefined {
    let last: EngineProperties | undefined;
    for (const { isReady, properties } of this.#all) {
      if (isReady) return properties;
      last ??= properties;
    }
    return last;
  }

  /** Slots of those that are ready; of all, where none is yet. */
  get slots_total(): number {
    let known = 0;
    let ready: number | undefined;
    for (const replica of this.#all) {
      const slots = this.slotsOf(replica);
      known += slots;
      if (replica.isReady) ready = (ready ?? 0) + slots;
    }
    if (ready !== undefined) return ready;
    return (
      known +
      Math.max(0, this.#options.count - this.#own.size) *
        (this.properties?.slots_total ?? this.#options.slots)
    );
  }

  slotsOf({ properties }: Replica): number {
    return properties?.slots_total ?? this.#options.slots;
  }

  /** Whether any of them holds, or is about to hold, memory. */
  get holdsMemory(): boolean {
    return [...this.#own.values()].some(({ holdsEngine }) => holdsEngine);
  }

  start(): void {
    for (let i = 0; i < this.#options.count; i++) {
      const name = `r${i}`;
      let replica = this.#own.get(name);
      if (!replica) {
        this.#own.set(name, (replica = this.#options.create(name)));
        this.#list();
      }
      replica.start();
    }
  }

  /** Engines of others stay: their memory is not ours to give. */
  unload(cause: UnloadCause): void {
    const own = [...this.#own.values()];
    for (const replica of own) this.#unloading.add(replica);
    for (const replica of own) replica.unload(cause);
    if (own.length === 0) this.#options.unloaded();
  }

  stop(): void {
    const { all } = this;
    for (const replica of all) this.#stopping.add(replica);
    for (const replica of all) replica.stop();
    if (all.length === 0) this.#options.stopped();
  }

  /** What follows is loaded from another model. */
  replaceEngines(): void {
    for (const replica of this.#own.values()) replica.replaceEngine();
  }

  /** One that is there under this name is replaced. */
  attach(name: string, replica: Replica): void {
    this.detach(name);
    this.#attached.set(name, replica);
    this.#list();
    replica.start();
  }

  /** @returns whether there was one */
  detach(name: string): boolean {
    const replica = this.#attached.get(name);
    if (!replica) return false;
    this.#attached.delete(name);
    this.#list();
    this.#detaching.add(replica);
    replica.stop();
    return true;
  }

  /** Takes note of what one of them says, before its pool hears it. */
  heard(replica: Replica, fact: ReplicaFact): void {
    if (fact.type === 'replica.unloaded' && this.#unloading.delete(replica) && this.#unloading.size === 0)
      this.#options.unloaded();
    if (fact.type !== 'replica.stopped') return;
    this.#detaching.delete(replica);
    // Whoever stops for good has also let go of its engine.
    if (this.#unloading.delete(replica) && this.#unloading.size === 0) this.#options.unloaded();
    for (const replicas of [this.#own, this.#attached])
      for (const [name, each] of replicas) if (each === replica) replicas.delete(name);
    this.#list();
    if (this.#stopping.delete(replica) && this.#stopping.size === 0) this.#options.stopped();
  }

  #list(): void {
    this.#all = [...this.#own.values(), ...this.#attached.values()];
  }
}
