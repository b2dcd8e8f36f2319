import test from 'ava';
import nock from 'nock';
import { remoteTarget } from '../../src/cli/remote-target.ts';
import { TaskchartError } from '../../src/errors.ts';

const URL = 'http://daemon.example:8080';
const CAPABILITIES = {
  api_version: '1.0.0',
  engines: [{ engine: 'llamacpp', pool_id: 'p', model_id: 'storyteller', ctx_max: 512 }],
};

test.before(() => nock.disableNetConnect());
test.afterEach.always(() => nock.cleanAll());

const submit = (url = URL): ReturnType<ReturnType<typeof remoteTarget>['submit']> =>
  remoteTarget(url).submit({ prompt: 'Once', model: undefined, max_tokens: 5 });

test.serial('a refusal arrives with its code and its message', async (t) => {
  nock(URL).get('/v1/capabilities').reply(200, CAPABILITIES);
  nock(URL)
    .post('/v1/tasks')
    .reply(429, { code: 'ADMISSION_REJECT', message: 'the queue is full', retriable: true });
  const error = await t.throwsAsync(submit(), { instanceOf: TaskchartError, message: 'the queue is full' });
  t.is(error?.code, 'ADMISSION_REJECT');
});

test.serial('something that is no taskchart is named with its status, not with its page', async (t) => {
  nock(URL).get('/v1/capabilities').reply(502, '<html>Bad Gateway</html>');
  await t.throwsAsync(submit(), { message: 'http://daemon.example:8080/v1/capabilities answered 502' });
});

test.serial(
  'asks for the model and the context of the first engine, and reads frames cut anywhere',
  async (t) => {
    nock(URL).get('/v1/capabilities').reply(200, CAPABILITIES);
    nock(URL)
      .post(
        '/v1/tasks',
        (body: Record<string, unknown>) => body['model_ref'] === 'storyteller' && body['ctx'] === 512,
      )
      .reply(202, { task_id: 'id-1' });
    nock(URL)
      .get('/v1/tasks/id-1/stream?verbose=true')
      .reply(
        200,
        ': keep-alive\n\nid: 0\nevent: started\ndata: {"queue_position":0,"predicted_start_ms":0}\n\nid: 1\nevent: end\ndata: {"tokens_out":0}\n\n',
      );
    const task = await submit(`${URL}/`);
    const types: string[] = [];
    for await (const event of task.events) types.push(event.type);
    t.deepEqual(types, ['started', 'end']);
  },
);

test('an address that is no URL is refused at once', (t) => {
  t.throws(() => remoteTarget('localhost'), { message: /^--url: must be a URL/ });
});
