/** What goes to disk together, flat because that is cheap to copy. Removals come before what is written. */
export interface LogFlush {
  dropped: string[];
  tasks: string[];
  /** For each task the ids of its first and of its last event here. */
  places: number[];
  /** For each task whether its last event here is a terminal one. */
  ends: boolean[];
  /** For each task its events in their wire form. */
  frames: string[];
  /** For each task when they came; where it ends, all of its times. */
  times: string[];
}

export function emptyFlush(): LogFlush {
  return { dropped: [], tasks: [], places: [], ends: [], frames: [], times: [] };
}
