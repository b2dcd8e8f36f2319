/** A replica as the scheduler sees it. */
export interface ReplicaSlots {
  id: string;
  slots_free: number;
  leases: number;
  /** Of its devices, where that is known. */
  memory_free_bytes?: number | undefined;
}

export interface DispatchView<T> {
  /** `now`: tasks may be placed; `soon`: the pool is being brought up; `never`: leave the queue alone. */
  places: 'now' | 'soon' | 'never';
  /** Whether the pool still has to be asked for. */
  cold: boolean;
  replicas: readonly ReplicaSlots[];
  /** Slots the pool will have once it is up. */
  slots_total: number;
  /** The head of the queue in dispatch order; at least as many as there are slots, if so many wait. */
  next: readonly T[];
  /** Tasks that wait in `provisioning`. */
  provisioning: ReadonlySet<T>;
  /** The replica that has the cache of a task's session. */
  affinity?: ((task: T) => string | undefined) | undefined;
}

export interface Dispatch<T> {
  /** Ask for the pool: something waits and nothing is being prepared. */
  ensure: boolean;
  grants: { task: T; replica_id: string }[];
  /** These are next in line for a pool that is not up yet. */
  provision: T[];
  /** These are not any more: others came before them, or the pool came up and its slots went to others. */
  wait: T[];
}

/**
 * Who runs where, now. Pure and total: the same view gives the same answer.
 *
 * 1. Nothing may be placed: everything waits.
 * 2. The pool is not up: the tasks that would fill its slots are `provisioning`, the others wait.
 * 3. The pool is up: in dispatch order, each task gets a slot of the replica that has its session's cache; where that
 *    has none, of the one with the most free memory, then the fewest leases, then the first id; until no slot is free.
 */
export function dispatch<T>(view: DispatchView<T>): Dispatch<T> {
  const result: Dispatch<T> = { ensure: false, grants: [], provision: [], wait: [] };
  if (view.places === 'never') return { ...result, wait: [...view.provisioning] };

  if (view.places === 'soon') {
    const inLine = view.next.slice(0, Math.max(1, view.slots_total));
    result.ensure = view.cold && inLine.length > 0;
    const isInLine = new Set(inLine);
    result.provision = inLine.filter((task) => !view.provisioning.has(task));
    result.wait = [...view.provisioning].filter((task) => !isInLine.has(task));
    return result;
  }

  const replicas = view.replicas.map((replica) => ({ ...replica }));
  const granted = new Set<T>();
  for (const task of view.next) {
    const wanted = view.affinity?.(task);
    const replica =
      replicas.find(({ id, slots_free }) => id === wanted && slots_free > 0) ?? leastLoaded(replicas);
    if (!replica) break;
    replica.slots_free--;
    replica.leases++;
    granted.add(task);
    result.grants.push({ task, replica_id: replica.id });
  }
  result.wait = [...view.provisioning].filter((task) => !granted.has(task));
  return result;
}

function leastLoaded<R extends ReplicaSlots>(replicas: readonly R[]): R | undefined {
  const open = replicas.filter(({ slots_free }) => slots_free > 0);
  // What is not known of every one decides nothing.
  const isMemoryKnown = open.every(({ memory_free_bytes }) => memory_free_bytes !== undefined);
  const memory = ({ memory_free_bytes = 0 }: R): number => (isMemoryKnown ? memory_free_bytes : 0);
  let best: R | undefined;
  for (const replica of open) {
    const order = best
      ? memory(best) - memory(replica) || replica.leases - best.leases || (replica.id < best.id ? -1 : 1)
      : -1;
    if (order < 0) best = replica;
  }
  return best;
}
