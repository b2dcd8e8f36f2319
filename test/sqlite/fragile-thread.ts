import { serve } from '../../src/sqlite/serve.ts';
import { StoreError } from '../../src/sqlite/store-error.ts';

serve<{ refuse?: true }, string, string>(({ refuse }) => {
  if (refuse) throw new StoreError('in_use', 'is in use');
  let batches = 0;
  return {
    write(batch) {
      batches++;
      if (batch === 'die') process.exit();
      if (batch === 'fail') throw new Error('no\nroom');
      return `${batch} ${batches}`;
    },
    close() {},
  };
});
