//! The plaintext of chunks, as whoever holds a key could write it: a blob is authenticated before it is read.

use zeroize::Zeroizing;

use crate::chunk::{ChunkError, Devices, Readings, ReadingsBuilder, Waveforms, WaveformsBuilder};

/// The longest input: one byte of a chunk may stand for hundreds of readings.
const MAX_BYTES: usize = 2_048;

/// Readings behind `r`, waveforms behind `w`, what is said of devices behind `d`. What decodes is in bounds and makes a
/// chunk, which merged with nothing is itself.
pub fn chunk_decode(bytes: &[u8]) -> bool {
    let bytes = &bytes[..bytes.len().min(MAX_BYTES)];
    let whole = match bytes {
        [b'r', plain @ ..] => readings(plain).and_then(|chunk| {
            let again = readings(&chunk)?;
            assert!(
                again == chunk,
                "a chunk changes when it is merged with nothing"
            );
            Ok(())
        }),
        [b'w', plain @ ..] => waveforms(plain).and_then(|chunk| {
            let again = waveforms(&chunk)?;
            assert!(
                again == chunk,
                "a chunk changes when it is merged with nothing"
            );
            Ok(())
        }),
        [b'd', plain @ ..] => Devices::parse(plain).map(|devices| {
            let encoded = devices.to_bytes();
            assert!(Devices::parse(&encoded).as_ref() == Ok(&devices));
            assert!(
                encoded.len() <= plain.len(),
                "the writer is longer than another one"
            );
        }),
        _ => return false,
    };
    whole.is_ok()
}

fn readings(plain: &[u8]) -> Result<Zeroizing<Vec<u8>>, ChunkError> {
    let readings = Readings::parse(Zeroizing::new(plain.to_vec()))?;
    for series in readings.series() {
        let (mut at, mut value, mut from) = (Vec::new(), Vec::new(), Vec::new());
        readings.times(series, &mut at)?;
        readings.values(series, &mut value)?;
        readings.message_indexes(series, &mut from)?;
        let count = series.stats.count;
        assert!(
            [at.len(), value.len(), from.len()] == [count; 3],
            "a reading got lost"
        );
        assert!(
            at.capacity().max(value.capacity()) <= 2_048 * plain.len(),
            "room for nothing"
        );
        let messages = readings.message_count();
        assert!(from.iter().all(|index| (*index as usize) < messages));
    }
    let mut builder = ReadingsBuilder::new();
    builder.merge(&readings)?;
    builder.finish()
}

fn waveforms(plain: &[u8]) -> Result<Zeroizing<Vec<u8>>, ChunkError> {
    let waveforms = Waveforms::parse(Zeroizing::new(plain.to_vec()))?;
    for row in waveforms.rows() {
        let mut values = Vec::new();
        waveforms.values(row, &mut values)?;
        assert!(values.len() == row.count, "a sample got lost");
        assert!((row.message as usize) < waveforms.message_count());
        assert!(row.last_us() >= row.start_us);
    }
    let mut builder = WaveformsBuilder::new();
    builder.merge(&waveforms)?;
    builder.finish()
}
