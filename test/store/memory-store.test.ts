import { MemoryStore } from '../../src/store/memory-store.ts';
import { testStore } from './conformance.ts';

testStore('memory', async () => new MemoryStore());
