//! The file side of `koc import members FILE --mapping MAPPING.toml`: a CRM's CSV export in, one neutral row at a time out.
//!
//! [`MemberFile`] is an iterator: one row is held at a time, so memory does not grow with the file. Each [`Row`] carries the
//! original cells beside the outcome, because a row that maps well can still be refused by the registry, and either way a
//! person gets it back in a [`RejectFile`] to mend and import again.
//!
//! The file is personal data throughout. A [`Reject`] therefore names line, column and reason and describes the *shape* of a
//! value ("14 characters, no @"), never the value; `Debug` is not derived on anything that holds a cell.

mod country;
mod mapping;
mod parse;
mod progress;
mod region;
mod rejects;
mod row;
mod source;
mod upload;
mod uploader;
mod wire;

use std::collections::HashMap;
use std::io::{self, Read, Seek};

use chrono::{DateTime, Utc};
use csv::StringRecord;

pub(crate) use mapping::{Mapping, Motivation, Purpose, time_zone};
pub(crate) use rejects::RejectFile;
pub(crate) use upload::Import;
pub(crate) use uploader::{RunPlan, Uploader};

use source::{END_MARK, Lines, SWALLOWED_END};

/// The longest row that is read, in bytes. A row past it is an unclosed quote, not a contact.
pub(crate) const MAX_ROW_BYTES: u64 = 1024 * 1024;

/// Why a whole file is refused. No variant quotes a cell.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("the file cannot be read")]
    Read(#[from] io::Error),
    #[error(
        "the file is UTF-16 or not text; save it as \"CSV UTF-8\", or convert it: iconv -f UTF-16 -t UTF-8 FILE > FILE.utf8.csv"
    )]
    Utf16,
    #[error(
        "line {line} is not UTF-8, so nothing was imported; a file saved as GBK is converted by: \
         iconv -f GB18030 -t UTF-8 FILE > FILE.utf8.csv"
    )]
    NotUtf8 { line: u64 },
    #[error("the file has no header line")]
    NoHeader,
    #[error("the mapping names columns that the file lacks: {}", .columns.join(", "))]
    MissingColumns { columns: Vec<String> },
    #[error("the mapping uses columns that the header has more than once: {}", .columns.join(", "))]
    RepeatedColumns { columns: Vec<String> },
    #[error("the row that begins on line {line} is longer than {MAX_ROW_BYTES} bytes; a quote in it is probably never closed")]
    RowTooLong { line: u64 },
    #[error("a quote in the row that begins on line {line} is never closed; that row and what follows were not imported")]
    UnclosedQuote { line: u64 },
    #[error("the row that begins on line {line} cannot be read as CSV")]
    Csv {
        line: u64,
        #[source]
        source: csv::Error,
    },
}

/// One violation in one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reject {
    /// Where the row begins in the file; the header is line 1. A quoted newline counts as a line, as it does in an editor.
    pub(crate) line: u64,
    /// The column at fault by its header, or empty when the row as a whole is.
    pub(crate) column: String,
    pub(crate) reason: String,
    /// What the value looks like without saying what it is; empty when there is none.
    pub(crate) value_shape: String,
}

/// A value that was left out of a row that is otherwise fine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Warning {
    pub(crate) line: u64,
    pub(crate) column: String,
    pub(crate) reason: &'static str,
}

/// A row of the file with what the mapping made of it.
pub(crate) struct Row {
    pub(crate) line: u64,
    /// Whose row it is, where the cell can be told; it may be the only thing in the row that can be read.
    pub(crate) external_id: Option<String>,
    pub(crate) cells: StringRecord,
    /// All violations of the row at once, never an empty list.
    pub(crate) outcome: Result<MappedRow, Vec<Reject>>,
}

/// What a row says about a member. `None` and empty lists mean "the file does not say": the registry leaves such a field
/// as it is, it does not clear it.
#[derive(Clone, PartialEq)]
pub(crate) struct MappedRow {
    pub(crate) line: u64,
    pub(crate) source_system: String,
    pub(crate) external_id: String,
    /// When the source last changed the record; decides which of two versions wins.
    pub(crate) source_time: DateTime<Utc>,
    pub(crate) display_name: Option<String>,
    pub(crate) email: Option<String>,
    /// E.164, such as `+8613800000000`.
    pub(crate) phone: Option<String>,
    /// ISO 3166-2, such as `CN-GD`.
    pub(crate) region: Option<String>,
    pub(crate) city: Option<String>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) vehicles: Vec<Vehicle>,
    pub(crate) motivations: Vec<Motivation>,
    /// In the mapping's order, each once.
    pub(crate) tags: Vec<String>,
    pub(crate) consents: Vec<Consent>,
    pub(crate) warnings: Vec<Warning>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Channel {
    pub(crate) platform: String,
    pub(crate) handle: String,
    pub(crate) followers: Option<i64>,
}

/// A vehicle that the member owns; at least one of the two is known.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Vehicle {
    pub(crate) model: Option<String>,
    pub(crate) vin: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Consent {
    pub(crate) purpose: Purpose,
    pub(crate) granted: bool,
}

/// A CSV export read row by row through a mapping.
pub(crate) struct MemberFile<'m, R> {
    mapping: &'m Mapping,
    reader: csv::Reader<Lines<R>>,
    header: StringRecord,
    columns: HashMap<String, usize>,
    done: bool,
}

impl<'m, R: Read + Seek> MemberFile<'m, R> {
    /// Checks the encoding of the whole file, then its header against the mapping, before any row is given out: a file in
    /// the wrong encoding changes nothing rather than half of the programme. Reads the input twice.
    pub(crate) fn open(mut input: R, mapping: &'m Mapping) -> Result<Self, FileError> {
        source::check_encoding(&mut input)?;
        input.rewind()?;
        let mut reader = csv::ReaderBuilder::new().delimiter(mapping.delimiter()).flexible(true).from_reader(Lines::new(input));
        let header = reader.headers().map_err(|source| csv_error(1, source))?.iter().map(parse::trim).collect::<StringRecord>();
        if header.is_empty() || header.iter().any(|name| name.contains(END_MARK)) {
            return Err(FileError::NoHeader);
        }
        let columns = bind(&header, mapping)?;
        Ok(Self { mapping, reader, header, columns, done: false })
    }

    /// The header of the file, trimmed; [`RejectFile`] repeats it.
    pub(crate) fn header(&self) -> &StringRecord {
        &self.header
    }

    /// How many bytes of the file the rows up to here took, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.reader.position().byte()
    }

    fn read(&mut self) -> Result<Option<Row>, FileError> {
        let line_before = self.reader.position().line();
        self.reader.get_mut().begin_row();
        let mut cells = StringRecord::new();
        let found = self.reader.read_record(&mut cells).map_err(|source| csv_error(line_before, source))?;
        if !found || (cells.len() == 1 && &cells[0] == END_MARK) {
            return Ok(None);
        }
        // The reader stands behind the newline that ended the row. Its own start position is of no use here: it points
        // before the blank lines that it skips.
        let inside = cells.iter().map(|cell| cell.matches('\n').count()).sum::<usize>() as u64;
        let end = self.reader.position().line();
        if cells.iter().any(|cell| cell.ends_with(SWALLOWED_END)) {
            return Err(FileError::UnclosedQuote { line: end.saturating_sub(inside) });
        }
        let line = end.saturating_sub(inside + 1);
        let outcome = row::map(self.mapping, &self.columns, self.header.len(), line, &cells);
        let external_id = row::external_id(self.mapping, &self.columns, self.header.len(), &cells);
        Ok(Some(Row { line, external_id, cells, outcome }))
    }
}

impl<R: Read + Seek> Iterator for MemberFile<'_, R> {
    type Item = Result<Row, FileError>;

    /// Ends after the first [`FileError`]: what follows a broken row cannot be told apart from it.
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.read().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

fn csv_error(line: u64, error: csv::Error) -> FileError {
    if let csv::ErrorKind::Io(source) = error.kind()
        && source::is_row_too_long(source)
    {
        return FileError::RowTooLong { line };
    }
    FileError::Csv { line, source: error }
}

/// Finds the mapping's columns in the header and names all that are missing or ambiguous.
fn bind(header: &StringRecord, mapping: &Mapping) -> Result<HashMap<String, usize>, FileError> {
    let wanted = mapping.columns();
    let mut columns = HashMap::with_capacity(wanted.len());
    let (mut missing, mut repeated) = (Vec::new(), Vec::new());
    for name in wanted {
        let mut places = header.iter().enumerate().filter(|(_, title)| *title == name);
        match (places.next(), places.next()) {
            (None, _) => missing.push(name.to_owned()),
            (Some(_), Some(_)) => repeated.push(name.to_owned()),
            (Some((place, _)), None) => {
                columns.insert(name.to_owned(), place);
            }
        }
    }
    if !missing.is_empty() {
        return Err(FileError::MissingColumns { columns: missing });
    }
    if !repeated.is_empty() {
        return Err(FileError::RepeatedColumns { columns: repeated });
    }
    Ok(columns)
}

#[cfg(test)]
mod tests;
