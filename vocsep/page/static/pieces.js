// Pieces of the copies for listening, as the server sends them: 16-bit samples, channels interleaved.

/** The piece at an address, as an `AudioBuffer`; an aborted `signal` gives up. */
export async function fetchedPiece(address, channels, sampleRate, signal) {
  const response = await fetch(address, { signal });
  if (!response.ok) throw new Error(`${address}: ${response.status}`);
  const samples = new Int16Array(await response.arrayBuffer());
  const frames = samples.length / channels;
  const buffer = new AudioBuffer({ length: frames, numberOfChannels: channels, sampleRate });
  for (let channel = 0; channel < channels; channel += 1) {
    const values = buffer.getChannelData(channel);
    for (let index = 0; index < frames; index += 1) values[index] = samples[index * channels + channel] / 32768;
  }
  return buffer;
}
