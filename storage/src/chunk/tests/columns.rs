//! Each kind of column, at its edges.

use proptest::prelude::*;

use super::super::{ChunkError, pack, times, values};

/// Encodes with `encode`, puts other bytes behind it as a blob has them, and decodes with `decode`.
fn through<T>(
    encode: impl FnOnce(&mut Vec<u8>),
    count: usize,
    decode: impl FnOnce(pack::Column<'_>, &mut Vec<T>) -> Result<(), ChunkError>,
) -> (usize, Vec<T>) {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    let length = bytes.len();
    bytes.extend([0xa5; pack::SLACK]);
    let mut values = Vec::new();
    decode(
        pack::Column::new(&bytes, length, count).unwrap(),
        &mut values,
    )
    .unwrap();
    (length, values)
}

fn packed(values: &[i64]) -> (usize, Vec<i64>) {
    let encode = |out: &mut Vec<u8>| pack::encode(values, out);
    through(encode, values.len(), |column, out| column.decode(out))
}

const LENGTHS: [usize; 8] = [1, 2, 3, 7, 1023, 1024, 1025, 3000];

#[test]
fn integers_of_every_width_come_back_whether_their_block_is_full_or_not() {
    for count in LENGTHS {
        for width in 0..=64 {
            let mut state = 1_u64;
            let random = std::iter::repeat_with(|| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state ^ (state >> 29))
                    .checked_shr(64 - width)
                    .unwrap_or(0)
                    .cast_signed()
            });
            let values: Vec<i64> = random.take(count).collect();
            let (length, decoded) = packed(&values);
            assert_eq!(decoded, values, "{count} of {width} bits");
            let most = (count * width as usize).div_ceil(8) + 24 * count.div_ceil(1024);
            assert!(length <= most, "{count} of {width} bits in {length} bytes");
        }
    }
}

/// What devices send costs little: each of these would cost thousands of bytes otherwise.
#[test]
fn what_is_regular_costs_nearly_nothing() {
    let steady: Vec<i64> = (0..1024).map(|n| 5 + 1000 * n).collect();
    let mut gap = steady.clone();
    gap[400..]
        .iter_mut()
        .for_each(|value| *value += 777_777_777);
    let uneven: Vec<i64> = (0..1024).map(|n| n * 1_000_000 / 117).collect();
    let mut spike = vec![60; 1024];
    spike[99] = i64::MAX;
    for (values, most) in [
        (vec![7; 1024], 3),
        (steady, 8),
        (gap, 20),
        (uneven, 160),
        (spike, 20),
    ] {
        let (length, decoded) = packed(&values);
        assert_eq!(decoded, values);
        assert!(length <= most, "{length} bytes, {most} expected");
    }
}

#[test]
fn what_is_near_the_ends_of_64_bits_comes_back() {
    for values in [
        vec![i64::MIN, i64::MAX],
        vec![i64::MAX, i64::MIN, 0, -1, 1],
        [i64::MIN, i64::MAX].repeat(600),
        (0..1500).map(|n| i64::MIN + (n << 52)).collect(),
    ] {
        assert_eq!(packed(&values).1, values);
    }
}

#[test]
fn decimals_cost_what_their_digits_do() {
    let temperatures: Vec<f64> = (0..1024).map(|n| f64::from(360 + n % 16) / 10.0).collect();
    let encode = |out: &mut Vec<u8>| values::encode(&temperatures, out);
    let (length, decoded) = through(encode, 1024, values::decode);
    assert_eq!(decoded, temperatures);
    assert!(
        length <= 1024 / 2 + 8,
        "{length} bytes for four bits a value"
    );
    // One that is no decimal makes its own block bits, and no other.
    let mut mixed = temperatures.repeat(3);
    mixed[1500] = 0.1 + 0.2;
    let encode = |out: &mut Vec<u8>| values::encode(&mixed, out);
    let (mixed_length, decoded) = through(encode, 3072, values::decode);
    assert_eq!(decoded, mixed);
    assert!((8000..10_000).contains(&mixed_length), "{mixed_length}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_sequence_of_integers_comes_back(
        count in prop::sample::select(LENGTHS.to_vec()),
        (base, slope, noise) in (any::<i64>(), any::<i32>(), 0..64_u32),
        spikes in prop::collection::vec((any::<prop::sample::Index>(), any::<i64>()), 0..5),
        seed in prop::collection::vec(any::<i64>(), 1..50),
    ) {
        let along = |n: usize| i64::try_from(n).unwrap().wrapping_mul(slope.into());
        let noise = |n: usize| seed[n % seed.len()] >> noise;
        let mut values: Vec<i64> = (0..count)
            .map(|n| base.wrapping_add(along(n)).wrapping_add(noise(n)))
            .collect();
        for (at, spike) in spikes {
            values[at.index(count)] = spike;
        }
        prop_assert_eq!(packed(&values).1, values);
    }

    #[test]
    fn any_sequence_of_doubles_comes_back_bit_for_bit(
        some in prop::collection::vec(prop_oneof![super::value(), any::<f64>()], 1..40),
        count in prop::sample::select(LENGTHS.to_vec()),
    ) {
        let doubles: Vec<f64> = some.iter().copied().cycle().take(count).collect();
        let encode = |out: &mut Vec<u8>| values::encode(&doubles, out);
        let decoded = through(encode, count, values::decode).1;
        prop_assert!(decoded.iter().map(|d| d.to_bits()).eq(doubles.iter().map(|d| d.to_bits())));
    }

    #[test]
    fn any_sorted_instants_come_back(mut at in prop::collection::vec(super::instant(), 1..300)) {
        at.sort_unstable();
        let encode = |out: &mut Vec<u8>| times::encode(&at, at[0], out);
        let decode = |column: pack::Column<'_>, out: &mut Vec<i64>| times::decode(column, at[0], out);
        prop_assert_eq!(through(encode, at.len(), decode).1, at.clone());
    }
}
