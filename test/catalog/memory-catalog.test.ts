import { MemoryCatalog } from '../../src/catalog/memory-catalog.ts';
import { testCatalogStore } from './conformance.ts';

testCatalogStore('memory', async () => new MemoryCatalog());
