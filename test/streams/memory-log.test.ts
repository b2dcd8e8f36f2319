import { MemoryTaskLog } from '../../src/streams/memory-log.ts';
import { testTaskLog } from './conformance.ts';

testTaskLog('memory', async () => new MemoryTaskLog());
