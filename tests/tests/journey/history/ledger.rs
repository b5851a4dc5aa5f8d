//! The ledger as it stands in the database, and how everything stood after each of its entries: added up here, by no code of the service.

use sqlx::{
    PgConnection, Row,
    postgres::PgRow,
    types::chrono::{DateTime, Utc},
};
use std::{collections::HashMap, ops::RangeInclusive};
use uuid::Uuid;

/// What the service kept of a request.
#[derive(Debug)]
pub struct Operation {
    pub id: Uuid,
    pub reservation: Option<Uuid>,
    /// reserved, committed, spent, released, and available; None for a refusal.
    pub done: Option<([i64; 4], i64)>,
    pub refusal: Option<serde_json::Value>,
    pub time: DateTime<Utc>,
}

#[derive(Debug)]
pub struct Entry {
    pub id: Uuid,
    pub sequence: i64,
    pub kind: String,
    pub amount: i64,
    pub reservation: Option<Uuid>,
    pub available_after: i64,
    pub operation: Uuid,
    pub time: DateTime<Utc>,
    pub reverses: Option<Uuid>,
}

/// An envelope's entries in order, and what they add up to after each.
#[derive(Debug, Default)]
pub struct Envelope {
    pub overrun_limit: i64,
    pub entries: Vec<Entry>,
    /// Available after so many entries, from none on.
    pub available: Vec<i64>,
    /// Of each reservation: after how many entries it changed, and to what.
    parts: HashMap<Uuid, Vec<(usize, [i64; 4])>>,
    /// Of each member: the same for what is in use.
    used: HashMap<Uuid, Vec<(usize, i64)>>,
    /// reserved, committed, spent and what was allocated, after all.
    pub balances: [i64; 4],
}

impl Envelope {
    /// The places in the order at which something decided at `time` can stand. The time is read under the envelope's lock, so it never
    /// falls from one transaction to the next; what one transaction decided has one time.
    pub fn places(&self, time: DateTime<Utc>) -> RangeInclusive<usize> {
        self.entries.partition_point(|e| e.time < time)..=self.entries.partition_point(|e| e.time <= time)
    }

    /// How a reservation stood after so many entries.
    pub fn parts(&self, reservation: Uuid, place: usize) -> [i64; 4] {
        let changes = self.parts.get(&reservation).map_or(&[][..], Vec::as_slice);
        changes[..changes.partition_point(|(at, _)| *at <= place)].last().map_or([0; 4], |(_, parts)| *parts)
    }

    /// What was in use for a member after so many entries.
    pub fn used(&self, member: Uuid, place: usize) -> i64 {
        let changes = self.used.get(&member).map_or(&[][..], Vec::as_slice);
        changes[..changes.partition_point(|(at, _)| *at <= place)].last().map_or(0, |(_, used)| *used)
    }

    pub fn entry(&self, id: Uuid) -> &Entry {
        self.entries.iter().find(|entry| entry.id == id).expect("an entry of the envelope")
    }

    /// Adds an entry up, and holds what must hold after each.
    fn take(&mut self, entry: Entry, members: &HashMap<Uuid, Uuid>, limits: &HashMap<Uuid, i64>) {
        let place = self.entries.len() + 1;
        assert_eq!(entry.sequence, i64::try_from(place).expect("few"), "the order has no gap");
        assert!(self.entries.last().is_none_or(|before| before.time <= entry.time), "time follows the order");
        // Changes of reserved, committed, spent, released.
        let change: [i64; 4] = match entry.kind.as_str() {
            "ALLOCATE" => [0; 4],
            "RESERVE" => [1, 0, 0, 0],
            "COMMIT" => [-1, 1, 0, 0],
            "SPEND" => [0, -1, 1, 0],
            "RELEASE" => [-1, 0, 0, 1],
            "REVERSE_COMMIT" => [1, -1, 0, 0],
            "REVERSE_SPEND" => [0, 1, -1, 0],
            "REFUND" => [0, 0, -1, 1],
            other => panic!("nobody asked for {other}"),
        };
        let change = change.map(|sign| sign * entry.amount);
        for (balance, change) in self.balances.iter_mut().zip(&change[..3]) {
            *balance += change;
        }
        if entry.kind == "ALLOCATE" {
            self.balances[3] += entry.amount;
        }
        if let Some(of) = entry.reservation {
            let mut parts = self.parts(of, place);
            parts.iter_mut().zip(change).for_each(|(part, change)| *part += change);
            assert!(parts.iter().all(|part| *part >= 0), "{entry:?} takes more than there is");
            self.parts.entry(of).or_default().push((place, parts));
            if let Some(member) = members.get(&of) {
                let used = self.used(*member, place) + change[..3].iter().sum::<i64>();
                assert!(limits.get(member).is_none_or(|limit| used <= *limit), "{entry:?} goes past the member's limit");
                self.used.entry(*member).or_default().push((place, used));
            }
        }
        if let Some(undone) = entry.reverses {
            let undone = self.entry(undone);
            assert!(undone.reservation == entry.reservation && undone.amount >= entry.amount, "{entry:?} undoes {undone:?}");
            assert!(self.entries.iter().all(|e| e.reverses != entry.reverses), "{entry:?} undoes what was undone");
        }
        let [reserved, committed, spent, allocated] = self.balances;
        let available = allocated - reserved - committed - spent;
        assert!(available + self.overrun_limit >= 0, "{entry:?} goes past the envelope's limit");
        assert_eq!(entry.available_after, available);
        self.available.push(available);
        self.entries.push(entry);
    }
}

/// All of it.
#[derive(Debug)]
pub struct Ledger {
    pub envelopes: HashMap<Uuid, Envelope>,
    pub operations: HashMap<(String, Uuid), Operation>,
    /// Which envelope a reservation is of.
    pub envelope_of: HashMap<Uuid, Uuid>,
    pub limits: HashMap<Uuid, i64>,
}

impl Ledger {
    /// Reads and adds up, and compares with the rows that stand beside the ledger.
    pub async fn read(conn: &mut PgConnection) -> Self {
        let operations = sqlx::query("SELECT * FROM operation").fetch_all(&mut *conn).await.expect("operations");
        let operations = operations.iter().map(operation).collect();
        let limits = sqlx::query_as("SELECT member_id, amount FROM member_limit").fetch_all(&mut *conn).await.expect("limits");
        let limits: HashMap<Uuid, i64> = limits.into_iter().collect();
        type Row = (Uuid, Uuid, Option<Uuid>, i64, i64, i64, i64);
        let reservations: Vec<Row> = sqlx::query_as(
            "SELECT reservation_id, envelope_id, member_id, reserved, committed, spent, released FROM reservation",
        )
        .fetch_all(&mut *conn)
        .await
        .expect("reservations");
        let members: HashMap<Uuid, Uuid> = reservations.iter().filter_map(|r| Some((r.0, r.2?))).collect();
        let mut envelopes = HashMap::new();
        let rows = sqlx::query("SELECT * FROM envelope").fetch_all(&mut *conn).await.expect("envelopes");
        for row in &rows {
            let id: Uuid = row.get("envelope_id");
            let entries = sqlx::query("SELECT * FROM ledger_entry WHERE envelope_id = $1 ORDER BY envelope_sequence").bind(id);
            let mut envelope = Envelope { overrun_limit: row.get("overrun_limit"), available: vec![0], ..Envelope::default() };
            for row in &entries.fetch_all(&mut *conn).await.expect("entries") {
                envelope.take(entry(row), &members, &limits);
            }
            let stored = ["reserved", "committed", "spent", "allocated"].map(|column| row.get::<i64, _>(column));
            assert_eq!(envelope.balances, stored, "the envelope's row is what its entries give");
            assert_eq!(row.get::<i64, _>("sequence"), i64::try_from(envelope.entries.len()).expect("few"));
            envelopes.insert(id, envelope);
        }
        for (id, envelope, _, reserved, committed, spent, released) in &reservations {
            let of: &Envelope = &envelopes[envelope];
            assert_eq!(of.parts(*id, of.entries.len()), [*reserved, *committed, *spent, *released], "the reservation's row");
        }
        let uses: Vec<(Uuid, i64)> =
            sqlx::query_as("SELECT member_id, used FROM member_limit").fetch_all(conn).await.expect("uses");
        for (member, used) in uses {
            let counted: i64 = envelopes.values().map(|envelope| envelope.used(member, envelope.entries.len())).sum();
            assert_eq!(used, counted, "the member limit's row");
        }
        let envelope_of = reservations.iter().map(|r| (r.0, r.1)).collect();
        Self { envelopes, operations, envelope_of, limits }
    }
}

fn operation(row: &PgRow) -> ((String, Uuid), Operation) {
    let parts = ["reserved", "committed", "spent", "released"].map(|column| row.get::<Option<i64>, _>(column).unwrap_or(0));
    let operation = Operation {
        id: row.get("operation_id"),
        reservation: row.get("reservation_id"),
        done: row.get::<Option<i64>, _>("available_after").map(|available| (parts, available)),
        refusal: row.get("refusal"),
        time: row.get("operation_time"),
    };
    ((row.get("method"), row.get("request_id")), operation)
}

fn entry(row: &PgRow) -> Entry {
    Entry {
        id: row.get("entry_id"),
        sequence: row.get("envelope_sequence"),
        kind: row.get("kind"),
        amount: row.get("amount"),
        reservation: row.get("reservation_id"),
        available_after: row.get("available_after"),
        operation: row.get("operation_id"),
        time: row.get("entry_time"),
        reverses: row.get("reverses_entry_id"),
    }
}
