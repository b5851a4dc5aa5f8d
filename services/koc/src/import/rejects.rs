//! The file of rejected rows: the original columns preceded by line, column and reason, so that a person can mend the cells
//! and import that very file with the same mapping.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use csv::StringRecord;

use super::Reject;

/// The columns put before the original ones. No mapping should name them: an import of the mended file passes
/// over them.
pub(crate) const ADDED_COLUMNS: [&str; 3] = ["line", "column", "reason"];

/// Written beside the target and renamed by [`RejectFile::finish`], so that the file under the final name is whole and may
/// even be the one that is being imported. No file is made while nothing is rejected.
pub(crate) struct RejectFile {
    path: PathBuf,
    header: StringRecord,
    delimiter: u8,
    /// How many leading columns of the input were added by an earlier run, and are replaced.
    replaced: usize,
    writer: Option<csv::Writer<BufWriter<File>>>,
    rows: u64,
}

impl RejectFile {
    pub(crate) fn new(path: impl Into<PathBuf>, header: &StringRecord, delimiter: u8) -> Self {
        let replaced = if header.iter().take(ADDED_COLUMNS.len()).eq(ADDED_COLUMNS) { ADDED_COLUMNS.len() } else { 0 };
        Self { path: path.into(), header: header.clone(), delimiter, replaced, writer: None, rows: 0 }
    }

    /// Writes one row with all that is wrong with it. `rejects` may come from the mapping or from the registry.
    pub(crate) fn write(&mut self, line: u64, cells: &StringRecord, rejects: &[Reject]) -> io::Result<()> {
        if self.writer.is_none() {
            self.writer = Some(self.create()?);
        }
        let line = line.to_string();
        let columns = rejects.iter().map(|reject| reject.column.as_str()).collect::<Vec<_>>().join("; ");
        let reasons = rejects.iter().map(describe).collect::<Vec<_>>().join("; ");
        let added = [line.as_str(), &columns, &reasons];
        let replaced = self.replaced;
        if let Some(writer) = &mut self.writer {
            writer.write_record(added.into_iter().chain(cells.iter().skip(replaced)))?;
            self.rows += 1;
        }
        Ok(())
    }

    /// Puts the file in place. Gives its path and number of rows, or `None` when nothing was rejected.
    pub(crate) fn finish(mut self) -> io::Result<Option<(PathBuf, u64)>> {
        let Some(writer) = self.writer.take() else {
            return Ok(None);
        };
        let file = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(part_of(&self.path), &self.path)?;
        Ok(Some((self.path, self.rows)))
    }

    fn create(&self) -> io::Result<csv::Writer<BufWriter<File>>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600); // Personal data.
        }
        let mut file = BufWriter::new(options.open(part_of(&self.path))?);
        // With the mark, spreadsheets take the file as UTF-8 and save it so.
        file.write_all("\u{feff}".as_bytes())?;
        let mut writer = csv::WriterBuilder::new()
            .delimiter(self.delimiter)
            .flexible(true)
            .terminator(csv::Terminator::CRLF)
            .from_writer(file);
        writer.write_record(ADDED_COLUMNS.into_iter().chain(self.header.iter().skip(self.replaced)))?;
        Ok(writer)
    }
}

fn describe(reject: &Reject) -> String {
    let mut text = match reject.column.as_str() {
        "" => reject.reason.clone(),
        column => format!("{column} {}", reject.reason),
    };
    if !reject.value_shape.is_empty() {
        text = format!("{text} ({})", reject.value_shape);
    }
    text
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}
