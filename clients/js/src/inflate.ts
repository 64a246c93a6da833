/** Unpacking of compressed bytes, bounded. */

import { type Bytes, concat } from "./bytes.js";

/**
 * What a compressed stream holds, undefined where it is no such stream, is cut, or holds
 * more than `limit` bytes.
 */
async function inflate(
  data: Bytes,
  format: CompressionFormat,
  limit: number,
): Promise<Bytes | undefined> {
  const parts: Bytes[] = [];
  let size = 0;
  try {
    const unpacker = new DecompressionStream(format);
    const reader = new Blob([data]).stream().pipeThrough(unpacker).getReader();
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      parts.push(new Uint8Array(next.value));
      size += next.value.length;
      if (size > limit) {
        await reader.cancel();
        return undefined;
      }
    }
  } catch {
    return undefined;
  }
  return concat(...parts);
}

function endOf(data: Bytes, isLittle: boolean): number | undefined {
  const at = data.byteOffset + data.length - 4;
  return data.length < 4
    ? undefined
    : new DataView(data.buffer, at).getUint32(0, isLittle);
}

// Some platforms pass over what follows a stream. Ending with the checksum, or with the
// size, of what was unpacked is what a stream with nothing after it does.

/** The content of a ZLIB stream (RFC 1950), undefined as above. */
export async function unzlib(data: Bytes, limit: number): Promise<Bytes | undefined> {
  const whole = await inflate(data, "deflate", limit);
  if (whole === undefined) return undefined;
  let [low, high] = [1, 0];
  for (const byte of whole) {
    low = (low + byte) % 65521;
    high = (high + low) % 65521;
  }
  return endOf(data, false) === high * 65536 + low ? whole : undefined;
}

/** The content of a gzip member (RFC 1952), undefined as above. */
export async function gunzip(data: Bytes, limit: number): Promise<Bytes | undefined> {
  const whole = await inflate(data, "gzip", limit);
  return whole !== undefined && endOf(data, true) === whole.length ? whole : undefined;
}
