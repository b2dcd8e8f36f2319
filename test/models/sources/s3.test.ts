import { readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import test from 'ava';
import type { S3Sdk } from '../../../src/models/origins/s3.ts';
import { sha256 } from '../../helpers/fake-registry.ts';
import { createSourceRig, gguf } from './rig.ts';

const MODEL = gguf(60_000);
const REFERENCE = 's3://bucket/sub/a.gguf';

interface Asked {
  kind: 'head' | 'get';
  Bucket: string;
  Key: string;
  Range?: string;
  IfMatch?: string;
}

/** The calls of the SDK, without its network. */
function fakeSdk(answer: (asked: Asked, times: number) => object | Error) {
  const asked: Asked[] = [];
  class Command {
    readonly input: Asked;
    constructor(kind: Asked['kind'], input: object) {
      this.input = { kind, ...input } as Asked;
    }
  }
  const sdk: S3Sdk = {
    S3Client: class {
      async send(command: unknown): Promise<unknown> {
        const { input } = command as Command;
        const answered = answer(input, asked.push(input));
        if (answered instanceof Error) throw answered;
        return answered;
      }
    },
    HeadObjectCommand: class extends Command {
      constructor(input: object) {
        super('head', input);
      }
    },
    GetObjectCommand: class extends Command {
      constructor(input: object) {
        super('get', input);
      }
    },
  };
  return { asked, load_s3: async () => sdk };
}

function failureOf(name: string, status: number): Error {
  return Object.assign(new Error(name), { name, $metadata: { httpStatusCode: status } });
}

async function* broken(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
  throw new Error('socket hang up');
}

test('an object is fetched by the SDK, gone on with after a break, and held against its checksum', async (t) => {
  const { provision } = await createSourceRig(t);
  const half = MODEL.length / 2;
  const { asked, load_s3 } = fakeSdk(({ kind }, times) => {
    if (kind === 'head')
      return {
        ContentLength: MODEL.length,
        ETag: '"tag"',
        ChecksumSHA256: Buffer.from(sha256(MODEL), 'hex').toString('base64'),
        ChecksumType: 'FULL_OBJECT',
      };
    return times === 2
      ? { ContentLength: MODEL.length, ETag: '"tag"', Body: broken(MODEL.subarray(0, half)) }
      : {
          ContentRange: `bytes ${half}-${MODEL.length - 1}/${MODEL.length}`,
          ETag: '"tag"',
          Body: Readable.from([MODEL.subarray(half)]),
        };
  });
  const model = await provision(REFERENCE, { load_s3 });
  t.deepEqual(readFileSync(model.path), MODEL);
  t.like(model, { verification: 'pass', revision: 'tag' });
  t.like(asked[0], { kind: 'head', Bucket: 'bucket', Key: 'sub/a.gguf', ChecksumMode: 'ENABLED' } as object);
  t.like(asked[2], { kind: 'get', Range: `bytes=${half}-`, IfMatch: '"tag"' });
});

test('an object that changed meanwhile is begun anew; a checksum of checksums is none', async (t) => {
  const { provision } = await createSourceRig(t);
  const { asked, load_s3 } = fakeSdk(({ kind, IfMatch }, times) => {
    if (kind === 'head')
      return {
        ContentLength: MODEL.length,
        ETag: '"old-2"',
        ChecksumSHA256: 'AAAA',
        ChecksumType: 'COMPOSITE',
      };
    if (IfMatch !== undefined) return failureOf('PreconditionFailed', 412);
    const ETag = times === 2 ? '"old-2"' : '"new"';
    return {
      ContentLength: MODEL.length,
      ETag,
      Body: times === 2 ? broken(MODEL.subarray(0, 30_000)) : Readable.from([MODEL]),
    };
  });
  const model = await provision(REFERENCE, { load_s3 });
  t.deepEqual(readFileSync(model.path), MODEL);
  t.is(model.verification, 'warn');
  t.deepEqual(
    asked.map(({ Range }) => Range),
    [undefined, undefined, 'bytes=30000-', undefined],
  );
});

for (const [error, message] of [
  [failureOf('NotFound', 404), /bucket bucket does not have the file; check its key/],
  [failureOf('AccessDenied', 403), /does not give out the file \(AccessDenied\); check the AWS credentials/],
  [failureOf('PermanentRedirect', 301), /is in another region; set AWS_REGION/],
] as const)
  test(`${error.name} is explained`, async (t) => {
    const { provision } = await createSourceRig(t);
    const { asked, load_s3 } = fakeSdk(() => error);
    t.like(await t.throwsAsync(provision(REFERENCE, { load_s3 }), { message }), {
      failure: { retriable: false },
    });
    t.is(asked.length, 1);
  });

test('without the SDK it is said how to get it', async (t) => {
  const { provision } = await createSourceRig(t);
  await t.throwsAsync(provision(REFERENCE), {
    message:
      /need the package @aws-sdk\/client-s3; install it beside taskchart: npm install @aws-sdk\/client-s3$/,
  });
});
