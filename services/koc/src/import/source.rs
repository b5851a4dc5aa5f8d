//! Bytes before they are CSV: encoding, line ends, and the limit on one row.

use std::io::{self, BufRead, BufReader, Read};

use super::{FileError, MAX_ROW_BYTES};

/// Appended as a last row of its own. Read back alone it is the end of the file; read back inside a cell it shows that a
/// quote was never closed, which a CSV reader otherwise accepts in silence with the rest of the file in one cell.
pub(super) const END_MARK: &str = "\u{1e}";
const TAIL: &[u8] = b"\n\x1e\n";
/// How a cell ends that swallowed the mark.
pub(super) const SWALLOWED_END: &str = "\n\u{1e}\n";

const CHUNK_BYTES: usize = 64 * 1024;

/// Reads to the end and refuses what is not UTF-8.
pub(super) fn check_encoding(input: &mut impl Read) -> Result<(), FileError> {
    let mut buffer = Vec::with_capacity(CHUNK_BYTES + 4);
    let mut line = 1;
    let mut at_start = true;
    loop {
        let read = input.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut buffer)?;
        // UTF-16 without a mark shows by its zero bytes, which no CSV text has.
        let marked = at_start && (buffer.starts_with(b"\xff\xfe") || buffer.starts_with(b"\xfe\xff"));
        if marked || buffer.contains(&0) {
            return Err(FileError::Utf16);
        }
        at_start = false;
        let (valid, broken) = match std::str::from_utf8(&buffer) {
            Ok(_) => (buffer.len(), false),
            // A character cut by the end of the chunk is completed by the next one, unless there is none.
            Err(error) => (error.valid_up_to(), error.error_len().is_some() || read == 0),
        };
        line += buffer[..valid].iter().filter(|byte| **byte == b'\n').count() as u64;
        if broken {
            return Err(FileError::NotUtf8 { line });
        }
        if read == 0 {
            return Ok(());
        }
        buffer.drain(..valid);
    }
}

/// Gives every line end as a single newline (CRLF and lone CR included), drops a byte-order mark, ends with [`END_MARK`] on
/// a line of its own, and fails when one row takes more than [`MAX_ROW_BYTES`].
pub(super) struct Lines<R> {
    inner: BufReader<R>,
    started: bool,
    after_cr: bool,
    tail: &'static [u8],
    row_bytes: u64,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { inner: BufReader::with_capacity(CHUNK_BYTES, input), started: false, after_cr: false, tail: TAIL, row_bytes: 0 }
    }

    /// Tells the limit that a new row starts. What the CSV reader holds in its buffer counts for the row that asked for it.
    pub(super) fn begin_row(&mut self) {
        self.row_bytes = 0;
    }
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if !self.started {
            self.started = true;
            if self.inner.fill_buf()?.starts_with("\u{feff}".as_bytes()) {
                self.inner.consume("\u{feff}".len());
            }
        }
        let mut written = 0;
        while written == 0 && !out.is_empty() {
            let input = self.inner.fill_buf()?;
            if input.is_empty() {
                return self.tail.read(out);
            }
            let mut taken = 0;
            for byte in input {
                if written == out.len() {
                    break;
                }
                taken += 1;
                let skipped = self.after_cr && *byte == b'\n';
                self.after_cr = *byte == b'\r';
                if !skipped {
                    out[written] = if self.after_cr { b'\n' } else { *byte };
                    written += 1;
                }
            }
            self.inner.consume(taken);
        }
        self.row_bytes += written as u64;
        if self.row_bytes > MAX_ROW_BYTES {
            return Err(io::Error::other(RowTooLong));
        }
        Ok(written)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a row is longer than {MAX_ROW_BYTES} bytes")]
struct RowTooLong;

pub(super) fn is_row_too_long(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<RowTooLong>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte per read, as a slow pipe may.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let one = out.len().min(1);
            self.0.read(&mut out[..one])
        }
    }

    #[test]
    fn every_line_end_becomes_one_newline_and_the_mark_goes() {
        let mut text = String::new();
        Lines::new("\u{feff}a\r\nb\rc\n\r\n".as_bytes()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "a\nb\nc\n\n\n\u{1e}\n");
    }

    #[test]
    fn a_character_cut_between_two_reads_is_still_utf8() {
        check_encoding(&mut Trickle("编号,名\r\n1,何\n".as_bytes())).unwrap();
        let long = "何".repeat(CHUNK_BYTES);
        check_encoding(&mut long.as_bytes()).unwrap();
    }

    #[test]
    fn gbk_is_refused_with_its_line_and_the_command_that_converts_it() {
        let error = check_encoding(&mut Trickle(b"id,name\n1,\xba\xce\xd0\xf1\n")).unwrap_err();
        assert!(matches!(error, FileError::NotUtf8 { line: 2 }));
        assert!(error.to_string().contains("iconv -f GB18030 -t UTF-8"));
    }

    #[test]
    fn a_file_that_ends_inside_a_character_is_refused() {
        let error = check_encoding(&mut &"1,何".as_bytes()[..4]).unwrap_err();
        assert!(matches!(error, FileError::NotUtf8 { line: 1 }));
    }

    #[test]
    fn utf16_is_refused_with_and_without_its_mark() {
        for bytes in [&b"\xff\xfei\0d\0"[..], b"\xfe\xff\0i\0d", b"i\0d\0"] {
            let error = check_encoding(&mut Trickle(bytes)).unwrap_err();
            assert!(matches!(error, FileError::Utf16));
            assert!(error.to_string().contains("iconv -f UTF-16"));
        }
    }
}
