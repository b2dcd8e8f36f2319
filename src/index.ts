/**
 * taskchart as a library: an orchestrator for LLM inference tasks inside your own process. Its HTTP face is
 * `taskchart/http`, a client for a daemon elsewhere is `taskchart/client`; nothing else may be imported from outside.
 */
export { createOrchestrator } from './embed.ts';
export type {
  EmbeddedOrchestrator,
  OrchestratorOptions,
  SubmitOptions,
  SubmitRequest,
  Task,
} from './embed.ts';
export { openStorage } from './storage.ts';
export type { Storage, StorageOptions } from './storage.ts';
export { StoreError } from './sqlite/store-error.ts';
export type { StoreErrorCode } from './sqlite/store-error.ts';
export { ConfigError } from './config.ts';
export type { ConfigInput } from './config.ts';
export { ERROR_KINDS, TaskchartError } from './errors.ts';
export type { ErrorKind, Failure } from './errors.ts';
export type { Observation, Observer } from './actors/observation.ts';
export type { TaskFilter } from './actors/task-registry.ts';
export type { LogEvent, TaskLog } from './streams/task-log.ts';
export type { CatalogEntry, CatalogStore } from './catalog/catalog-store.ts';
export type { Store } from './store/store.ts';
export type { Clock } from './clock.ts';
export type {
  AdmissionResponse,
  Capabilities,
  CatalogModel,
  CatalogPage,
  PoolHealth,
  SessionInfo,
  TaskInfo,
  TaskPreview,
  TaskRequest,
  TaskSummary,
} from './contract/generated/types.ts';
