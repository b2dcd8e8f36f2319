/** A state in words, from the outside in: `reloading.staging`. */
export function stateName({ value }: { value: string | object }): string {
  return pathOf(value);
}

/** The outermost of its states: what a machine is doing, without the details of how. */
export function outerState(snapshot: { value: string | object }): string {
  return stateName(snapshot).split('.')[0] ?? '';
}

function pathOf(value: string | object): string {
  if (typeof value === 'string') return value;
  const [[name, inner] = ['', '']] = Object.entries(value) as [string, string | object][];
  return `${name}.${pathOf(inner)}`;
}
