//! Any bytes on a monitor's control socket, cut in any way.
#![no_main]

use dctl_vmm::control::{Answer, Lines, MAX_LINE, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (cut, input) = input.split_first().unwrap_or((&1, &[]));
    let mut whole = Vec::new();
    let at_once = Lines::default().feed(input, |line| {
        assert!(line.len() <= MAX_LINE);
        if let Ok(request) = serde_json::from_slice::<Request>(line) {
            let again = serde_json::to_vec(&request).expect("it is JSON");
            assert_eq!(
                serde_json::from_slice::<Request>(&again).ok(),
                Some(request)
            );
        }
        if let Ok(answer) = serde_json::from_slice::<Answer>(line) {
            let again = serde_json::to_vec(&answer).expect("it is JSON");
            assert_eq!(serde_json::from_slice::<Answer>(&again).ok(), Some(answer));
        }
        whole.push(line.to_vec());
        true
    });
    // However it is cut, the lines are the same.
    let mut lines = Lines::default();
    let mut pieces = Vec::new();
    let cut_up = input
        .chunks(usize::from(*cut).max(1))
        .try_for_each(|piece| {
            lines.feed(piece, |line| {
                pieces.push(line.to_vec());
                true
            })
        });
    assert_eq!(at_once, cut_up);
    assert_eq!(whole, pieces);
});
