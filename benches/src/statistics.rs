//! Medians and ratios of what was measured.

use std::time::Duration;

/// The middle one of the values; the lower of two.
pub(crate) fn median<T: Copy + PartialOrd>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    sorted.get((sorted.len().checked_sub(1)?) / 2).copied()
}

/// Milliseconds with one decimal.
pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// One comparison: what it is, ours, theirs, and the bound on their ratio.
pub(crate) fn compare(what: &str, ours: f64, peer: &str, theirs: f64, unit: &str, bound: f64) {
    let ratio = ours / theirs;
    let verdict = if ratio <= bound { "ok" } else { "OVER" };
    println!(
        "  {what}: {ours:.1} {unit}, {peer} {theirs:.1} {unit}: ratio {ratio:.2} (at most {bound}) {verdict}"
    );
}

/// The same of what is better when there is more of it.
pub(crate) fn compare_rates(
    what: &str,
    ours: f64,
    peer: &str,
    theirs: f64,
    unit: &str,
    bound: f64,
) {
    let ratio = ours / theirs;
    let verdict = if ratio >= bound { "ok" } else { "UNDER" };
    println!(
        "  {what}: {ours:.1} {unit}, {peer} {theirs:.1} {unit}: ratio {ratio:.2} (at least {bound}) {verdict}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3, 1, 2]), Some(2));
        assert_eq!(median(&[4, 1, 2, 3]), Some(2));
        assert_eq!(median::<u8>(&[]), None);
    }
}
