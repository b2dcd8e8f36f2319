import { MemoryArtifacts } from '../../src/artifacts/memory-artifacts.ts';
import { testArtifactStore } from './conformance.ts';

testArtifactStore('memory', async (_t, wall) => new MemoryArtifacts({ wall: () => wall.now }));
