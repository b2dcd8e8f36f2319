import { isIPv4, isIPv6 } from 'node:net';

/** Where to listen. */
export interface BindAddr {
  /** Address or name, an IPv6 address without its brackets. */
  host: string;
  /** 0 takes any free port. */
  port: number;
  /** Whether only this machine can reach it: 127.0.0.0/8, ::1 or localhost. */
  loopback: boolean;
}

/**
 * Reads `127.0.0.1:8080`, `localhost:8080` or `[::1]:8080`.
 * @returns undefined for anything else
 */
export function parseBindAddr(text: string): BindAddr | undefined {
  const match = /^(?:\[([^\]]+)\]|([^\s:[\]]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65_535) return undefined;
  if (match?.[1] !== undefined ? !isIPv6(host) : !isHost(host)) return undefined;
  const loopback = host === '::1' || /^localhost$/i.test(host) || (isIPv4(host) && host.startsWith('127.'));
  return { host, port, loopback };
}

function isHost(text: string): boolean {
  if (isIPv4(text)) return true;
  // A name of digits and dots alone is an address with a slip in it.
  return /^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(text) && /[A-Za-z]/.test(text);
}
