//! Files of members: taken in chunk by chunk, then read line by line.

use super::{name::named, sync_run::RunId};
use chrono::{DateTime, Utc};
use koc_chassis::ids::ProgrammeId;

koc_chassis::typed_id! {
    /// One import.
    ImportId,
}

/// The largest file, in bytes.
pub const MAX_IMPORT_BYTES: i64 = 10 * 1024 * 1024 * 1024;
/// The longest line, in bytes.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;

named! {
    /// How far an import is.
    ImportState {
        Receiving = "RECEIVING",
        Running = "RUNNING",
        Ended = "ENDED",
        Cancelled = "CANCELLED",
        LineTooLong = "LINE_TOO_LONG",
    }
}

/// An import as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    pub id: ImportId,
    pub programme: ProgrammeId,
    pub run: RunId,
    pub state: ImportState,
    pub received_bytes: i64,
    pub read_bytes: i64,
    pub read_lines: i64,
    pub actor: String,
    pub create_time: DateTime<Utc>,
    pub update_time: DateTime<Utc>,
    pub end_time: Option<DateTime<Utc>>,
}

/// Why an import does not go on as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such import")]
    NotFound { import: ImportId },
    #[error("the run has an import already")]
    Exists { import: ImportId },
    #[error("the run has batches, or is closed: a file needs a run of its own")]
    RunBegun { run: RunId },
    #[error("the import is {}", state.name())]
    State { import: ImportId, state: ImportState },
    #[error("a chunk at {got} leaves a gap; go on at {next}")]
    ChunkGap { import: ImportId, got: i64, next: i64 },
    #[error("there are other bytes at {offset}")]
    ChunkDiffers { import: ImportId, offset: i64 },
    #[error("a file has at most {MAX_IMPORT_BYTES} bytes")]
    TooLarge { import: ImportId },
    #[error("{received} bytes are here, of {total}")]
    Incomplete { import: ImportId, received: i64, total: i64 },
}

/// What is to be done with a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Append,
    /// It lies within what is here: the same bytes are.
    Compare,
}

impl Import {
    /// What is to be done with `bytes` at `offset`.
    pub fn place(&self, offset: i64, bytes: usize) -> Result<Place, Refusal> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        match offset {
            _ if self.state != ImportState::Receiving => Err(self.refused()),
            _ if offset < self.received_bytes => Ok(Place::Compare),
            _ if offset > self.received_bytes => {
                Err(Refusal::ChunkGap { import: self.id, got: offset, next: self.received_bytes })
            }
            _ if offset.saturating_add(bytes) > MAX_IMPORT_BYTES => Err(Refusal::TooLarge { import: self.id }),
            _ => Ok(Place::Append),
        }
    }

    /// Whether its rows may be applied.
    pub fn start(&self, total: i64) -> Result<(), Refusal> {
        match self.state {
            ImportState::Receiving if total == self.received_bytes => Ok(()),
            ImportState::Receiving => Err(Refusal::Incomplete { import: self.id, received: self.received_bytes, total }),
            _ => Err(self.refused()),
        }
    }

    /// Whether it may be stopped.
    pub fn cancel(&self) -> Result<(), Refusal> {
        match self.state {
            ImportState::Receiving | ImportState::Running => Ok(()),
            _ => Err(self.refused()),
        }
    }

    fn refused(&self) -> Refusal {
        Refusal::State { import: self.id, state: self.state }
    }
}

/// Whole lines from the beginning of a part of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Lines<'a> {
    /// Without their ends.
    pub lines: Vec<&'a [u8]>,
    /// How many bytes they take, with their ends.
    pub bytes: usize,
}

/// The first lines of a part, at most `limit`; what follows the last line's end counts as a line when the file ends with the part.
pub fn lines(part: &[u8], limit: usize, ends: bool) -> Lines<'_> {
    let mut found = Lines { lines: Vec::new(), bytes: 0 };
    while found.lines.len() < limit {
        let rest = &part[found.bytes..];
        let (line, taken) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(at) => (&rest[..at], at + 1),
            None if ends && !rest.is_empty() => (rest, rest.len()),
            None => break,
        };
        found.lines.push(line.strip_suffix(b"\r").unwrap_or(line));
        found.bytes += taken;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn import(state: ImportState, received_bytes: i64) -> Import {
        let now = DateTime::UNIX_EPOCH;
        Import {
            id: ImportId(Uuid::nil()),
            programme: ProgrammeId(Uuid::nil()),
            run: RunId(Uuid::nil()),
            state,
            received_bytes,
            read_bytes: 0,
            read_lines: 0,
            actor: "importer".into(),
            create_time: now,
            update_time: now,
            end_time: None,
        }
    }

    #[test]
    fn a_chunk_goes_where_the_file_ends_and_nowhere_else() {
        let receiving = import(ImportState::Receiving, 10);
        assert_eq!(receiving.place(10, 5), Ok(Place::Append));
        assert_eq!(receiving.place(4, 6), Ok(Place::Compare));
        assert_eq!(receiving.place(11, 5), Err(Refusal::ChunkGap { import: receiving.id, got: 11, next: 10 }));
        let full = import(ImportState::Receiving, MAX_IMPORT_BYTES - 1);
        assert_eq!(full.place(MAX_IMPORT_BYTES - 1, 1), Ok(Place::Append));
        assert_eq!(full.place(MAX_IMPORT_BYTES - 1, 2), Err(Refusal::TooLarge { import: full.id }));
        let running = import(ImportState::Running, 10);
        assert_eq!(running.place(10, 5), Err(Refusal::State { import: running.id, state: ImportState::Running }));
    }

    #[test]
    fn it_starts_once_it_is_whole_and_is_stopped_before_it_ends() {
        let receiving = import(ImportState::Receiving, 10);
        assert_eq!((receiving.start(10), receiving.cancel()), (Ok(()), Ok(())));
        assert_eq!(receiving.start(11), Err(Refusal::Incomplete { import: receiving.id, received: 10, total: 11 }));
        let running = import(ImportState::Running, 10);
        assert_eq!(running.cancel(), Ok(()));
        assert!(running.start(10).is_err() && import(ImportState::Ended, 10).cancel().is_err());
    }

    #[test]
    fn lines_end_with_either_end_and_the_last_one_with_the_file() {
        let part = b"a\r\n\nbc\nde";
        assert_eq!(lines(part, 9, false), Lines { lines: vec![b"a", b"", b"bc"], bytes: 7 });
        assert_eq!(lines(part, 9, true), Lines { lines: vec![b"a", b"", b"bc", b"de"], bytes: 9 });
        assert_eq!(lines(part, 2, true), Lines { lines: vec![b"a", b""], bytes: 4 });
        assert_eq!(lines(b"", 9, true), Lines { lines: Vec::new(), bytes: 0 });
    }

    proptest! {
        #[test]
        fn a_file_has_the_same_lines_however_it_is_cut(text in "[ab\n]{0,40}", limit in 1..5usize, window in 20..60usize) {
            let file = text.as_bytes();
            let (mut at, mut found) = (0, Vec::new());
            while at < file.len() {
                let end = (at + window).min(file.len());
                let part = lines(&file[at..end], limit, end == file.len());
                if part.bytes == 0 {
                    // A line that is longer than the window.
                    prop_assert!(!file[at..end].contains(&b'\n'));
                    return Ok(());
                }
                found.extend(part.lines.into_iter().map(<[u8]>::to_vec));
                at += part.bytes;
            }
            let expected: Vec<_> = text.strip_suffix('\n').unwrap_or(&text).split('\n').map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(found, if text.is_empty() { Vec::new() } else { expected });
        }
    }
}
