//! Resources (资源): the catalogue.

use super::{cost::model::CostModel, plan::ResourceClass};
use crate::ids::{ProgrammeId, ResourceId};
use chrono::{DateTime, NaiveDate, Utc};

/// A thing in the catalogue, in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    pub id: ResourceId,
    pub programme: ProgrammeId,
    pub class: ResourceClass,
    pub display_name: String,
    pub model: CostModel,
    /// That of class, name and model, from 1.
    pub version: i64,
    /// Set when it is out of use.
    pub retirement: Option<Retirement>,
    /// Rises with each change; the etag.
    pub revision: i64,
    pub set_by: String,
    pub reason: String,
    pub create_time: DateTime<Utc>,
    pub version_time: DateTime<Utc>,
}

/// How a resource ended. Amounts in minor units; both absent for kinds that have nothing in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retirement {
    /// The last day.
    pub date: NaiveDate,
    pub book_value: Option<i64>,
    pub proceeds: Option<i64>,
}

impl Retirement {
    /// Below zero for a loss.
    pub fn gain(&self) -> Option<i64> {
        self.proceeds.zip(self.book_value).map(|(proceeds, book)| proceeds - book)
    }
}
