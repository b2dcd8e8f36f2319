import type { S3ModelName } from '../../config/model.ts';
import type { OpenBody } from '../download.ts';
import { unobtainable } from '../failures.ts';
import { retrying, TransientError, type RetryPorts } from '../retry.ts';
import { baseName } from './gguf-parts.ts';
import type { RemoteModel } from './origin.ts';

/** What is used of `@aws-sdk/client-s3`. */
export interface S3Sdk {
  S3Client: new (options: object) => {
    send(command: unknown, options: { abortSignal: AbortSignal }): Promise<unknown>;
  };
  HeadObjectCommand: new (input: object) => unknown;
  GetObjectCommand: new (input: object) => unknown;
}

interface ObjectFacts {
  ContentLength?: number;
  ContentRange?: string;
  ETag?: string;
  VersionId?: string;
  ChecksumSHA256?: string;
  ChecksumType?: string;
  Body?: AsyncIterable<Uint8Array>;
}

const PACKAGE = '@aws-sdk/client-s3';

/** The SDK is the caller's to install: few need it, and it is larger than everything else together. */
export async function loadS3Sdk(): Promise<S3Sdk> {
  try {
    return (await import(PACKAGE)) as S3Sdk;
  } catch {
    throw unobtainable(
      `s3:// models need the package ${PACKAGE}; install it beside taskchart: npm install ${PACKAGE}`,
    );
  }
}

/** One object, with the credentials and the region that the SDK finds by itself. @throws TaskchartError */
export async function resolveS3(
  { bucket, key }: S3ModelName,
  sdk: S3Sdk,
  retry: RetryPorts,
  signal: AbortSignal,
): Promise<RemoteModel> {
  const client = new sdk.S3Client({});
  const at = { Bucket: bucket, Key: key };
  const head = await retrying(retry, signal, () =>
    client.send(new sdk.HeadObjectCommand({ ...at, ChecksumMode: 'ENABLED' }), { abortSignal: signal }).then(
      (facts) => facts as ObjectFacts,
      (error: unknown) => {
        throw meaning(error, bucket);
      },
    ),
  );
  const revision = head.VersionId ?? head.ETag?.replaceAll('"', '');
  const open: OpenBody = async (offset, validator, stop) => {
    const command = new sdk.GetObjectCommand({
      ...at,
      ...(offset === 0 ? {} : { Range: `bytes=${offset}-` }),
      ...(offset === 0 || validator === undefined ? {} : { IfMatch: validator }),
    });
    let object: ObjectFacts;
    try {
      object = (await client.send(command, { abortSignal: stop })) as ObjectFacts;
    } catch (error) {
      if (statusOf(error) === 412) return open(0, undefined, stop);
      if (statusOf(error) === 416) return undefined;
      throw meaning(error, bucket);
    }
    const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(object.ContentRange ?? '');
    return {
      offset: Number(range?.[1] ?? 0),
      total: range ? Number(range[2]) : object.ContentLength,
      validator: object.ETag,
      digest: undefined,
      chunks: chunksOf(object.Body, bucket),
    };
  };
  return {
    revision,
    folder: `s3/${bucket}/${(revision ?? 'unversioned').replaceAll(/[^\w.-]/g, '_')}`,
    isFolder: false,
    files: [
      {
        name: baseName(key),
        size_bytes: head.ContentLength,
        digest: fullDigest(head),
        origin: `s3://${bucket}/${key}`,
        open,
      },
    ],
  };
}

/** A checksum of checksums, as of an upload in parts, says nothing about the file as a whole. */
function fullDigest({ ChecksumSHA256, ChecksumType }: ObjectFacts): string | undefined {
  if (ChecksumSHA256 === undefined || ChecksumType === 'COMPOSITE' || ChecksumSHA256.includes('-'))
    return undefined;
  return `sha256:${Buffer.from(ChecksumSHA256, 'base64').toString('hex')}`;
}

async function* chunksOf(
  body: AsyncIterable<Uint8Array> | undefined,
  bucket: string,
): AsyncGenerator<Uint8Array> {
  try {
    if (body) yield* body;
  } catch (error) {
    throw meaning(error, bucket);
  }
}

function statusOf(error: unknown): number | undefined {
  return (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;
}

function meaning(error: unknown, bucket: string): Error {
  const { name } = error as Error;
  const status = statusOf(error);
  if (status === 404) return unobtainable(`bucket ${bucket} does not have the file; check its key`);
  if (status === 301) return unobtainable(`bucket ${bucket} is in another region; set AWS_REGION`);
  if (status === 401 || status === 403 || name === 'CredentialsProviderError')
    return unobtainable(`bucket ${bucket} does not give out the file (${name}); check the AWS credentials`);
  return new TransientError(`bucket ${bucket} could not be read (${name})`);
}
