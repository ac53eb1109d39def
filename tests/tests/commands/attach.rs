//! Attaching with the log, through the API: what was written before and what comes
//! meet without a gap.

use std::{
    fmt::Write as _,
    io::{BufReader, Read, Write},
    os::unix::net::UnixStream,
    thread,
};

use serde_json::{Value, json};
use tests::api::Connection;

use crate::shared::{Name, shared};

/// Numbers in short lines, and in lines that are longer than an entry of a log. More
/// than what waits on the way to one who doesn't read.
const SCRIPT: &str =
    "read go; seq -s ' ' 1 300000; seq 300001 320000; seq -s ' ' 320001 600000; printf end";

fn expected() -> Vec<u8> {
    let mut text = String::new();
    for number in 1..=600_000 {
        let end = match number {
            300_000..=320_000 | 600_000 => '\n',
            _ => ' ',
        };
        write!(text, "{number}{end}").unwrap();
    }
    text.push_str("end");
    text.into_bytes()
}

fn attach(name: &Name, options: &str) -> BufReader<UnixStream> {
    let client = Connection::open(&shared().installation.socket()).unwrap();
    let path = format!("/containers/{}/attach?stdout=1&{options}", name.as_str());
    client.hijack(&path, "").unwrap()
}

/// Reads frames of standard output until at least `length` bytes have come.
fn read(stream: &mut impl Read, into: &mut Vec<u8>, length: usize) {
    while into.len() < length {
        let mut header = [0; 8];
        match stream.read(&mut header[..1]).unwrap() {
            0 => return,
            _ => stream.read_exact(&mut header[1..]).unwrap(),
        }
        let [stream_type @ .., a, b, c, d] = header;
        assert_eq!(stream_type, [1, 0, 0, 0], "no frame of standard output");
        let size = [a, b, c, d];
        let size = u64::from(u32::from_be_bytes(size));
        assert_eq!(stream.take(size).read_to_end(into).unwrap() as u64, size);
    }
}

#[test]
fn in_the_middle_of_much_output_no_byte_is_lost_or_doubled() {
    let name = Name::new();
    let mut client = Connection::open(&shared().installation.socket()).unwrap();
    let config = json!({
        "Image": shared().busybox, "Cmd": ["sh", "-c", SCRIPT],
        "OpenStdin": true, "StdinOnce": true,
        // The log is in many files.
        "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "200k", "max-file": "100"}}},
    });
    let mut post = |path: &str, body: &Value| {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        client.ask("POST", path, &body).unwrap().success();
    };
    post(
        &format!("/containers/create?name={}", name.as_str()),
        &config,
    );
    let mut first = attach(&name, "stream=1&stdin=1");
    post(
        &format!("/containers/{}/start", name.as_str()),
        &Value::Null,
    );
    first.get_mut().write_all(b"go\n").unwrap();
    // It can write only as fast as all read: the others come in the middle.
    let mut readers = Vec::new();
    let mut seen = Vec::new();
    for length in [1, 300_000, 600_000, 900_000, 1_500_000] {
        read(&mut first, &mut seen, length);
        let mut stream = attach(&name, "logs=1&stream=1");
        readers.push(thread::spawn(move || {
            let mut seen = Vec::new();
            read(&mut stream, &mut seen, usize::MAX);
            seen
        }));
    }
    read(&mut first, &mut seen, usize::MAX);
    let mut read_by_all = vec![seen];
    read_by_all.extend(readers.into_iter().map(|reader| reader.join().unwrap()));
    // It has ended: what there is is the log, and the stream waits for the next start.
    let mut late = Vec::new();
    let expected = expected();
    read(
        &mut attach(&name, "logs=1&stream=1"),
        &mut late,
        expected.len(),
    );
    read_by_all.push(late);
    for read in read_by_all {
        let same = read.iter().zip(&expected).take_while(|(a, b)| a == b);
        assert!(
            read == expected,
            "{} bytes of {}, the same up to {}",
            read.len(),
            expected.len(),
            same.count()
        );
    }
}
