import { once } from 'node:events';
import { createConnection, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

export interface Proxy {
  readonly url: string;
  /** Connections that were accepted so far. */
  readonly connections: number;
  /** Connections that are open, on both sides. */
  readonly open: number;
  /** Nobody answers any more, as while a daemon restarts; open connections break. */
  down(): Promise<void>;
  /** Answers again at the same address. Safe to repeat. */
  up(): Promise<void>;
  close(): Promise<void>;
}

/**
 * Relays TCP to a server, and breaks connections.
 * @param cuts how many bytes of answers each connection lets through before it breaks; later ones are whole
 */
export async function startProxy(target: string, cuts: readonly number[] = []): Promise<Proxy> {
  const { hostname, port } = new URL(target);
  const sockets = new Set<Socket>();
  let connections = 0;
  let listening: Server | undefined;

  const accept = (client: Socket): void => {
    let left = cuts[connections++] ?? Infinity;
    const server = createConnection(Number(port), hostname);
    const end = (): void => {
      client.destroy();
      server.destroy();
    };
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      sockets.add(socket);
      socket.on('error', end).on('close', end);
      socket.on('close', () => sockets.delete(socket));
    }
    client.on('data', (bytes) => server.write(bytes));
    server.on('data', (bytes) => {
      const passed = bytes.subarray(0, left);
      left -= passed.length;
      if (left > 0) client.write(passed);
      // The reader has what came before the cut, as with a network that fails.
      else client.end(passed, end);
    });
  };
  const listen = async (at: number): Promise<number> => {
    listening = createServer(accept).listen(at, '127.0.0.1');
    await once(listening, 'listening');
    return (listening.address() as AddressInfo).port;
  };
  const down = async (): Promise<void> => {
    const closed = listening && once(listening, 'close');
    listening?.close();
    for (const socket of sockets) socket.destroy();
    await closed;
    listening = undefined;
  };
  const own = await listen(0);
  return {
    url: `http://127.0.0.1:${own}`,
    get connections() {
      return connections;
    },
    get open() {
      return sockets.size;
    },
    down,
    async up() {
      if (!listening) await listen(own);
    },
    close: down,
  };
}
