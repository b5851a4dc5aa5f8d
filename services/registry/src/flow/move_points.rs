//! The one way by which points move: in one transaction and a fixed number of statements, however many are moved. Accounts are locked, what
//! is overdue expires, each movement is decided in order, and what it changed is written: entries, lots, accounts, places on leaderboards,
//! facts, and the badges that it brings.

use super::{
    award_badges,
    rank_members::{self, Gains},
    redirect::{self, LockedAccounts},
};
use crate::{
    domain::{
        badge::Badge,
        leaderboard::{Board, Month},
        points::{Account, Act, Draw, Earning, Entry, EntryId, Kind, Refusal, Source},
        title::{Title, TitleSet},
    },
    error::Error,
    store::{self, points::Wanted},
};
use chrono_tz::Tz;
use koc_chassis::{
    clock,
    gate::Call,
    ids::{MemberId, ProgrammeId},
    outbox::{self, NewFact},
    postgres::Db,
};
use koc_proto::koc::registry::v1 as pb;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// How often a batch that lost a race is run.
const MAX_ATTEMPTS: u32 = 5;

/// What is asked for a member.
#[derive(Debug, Clone)]
pub enum Movement {
    Earn(Earning),
    Redeem {
        source: Source,
        amount: i64,
    },
    /// The whole of it without an amount.
    Reverse {
        origin: Entry,
        amount: Option<i64>,
    },
}

/// What came of it: a new entry, or the one that was made when the same was asked before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    Now(Entry),
    Before(Entry),
}

impl Moved {
    pub fn entry(self) -> Entry {
        match self {
            Self::Now(entry) | Self::Before(entry) => entry,
        }
    }
}

/// Moves points of one member.
pub async fn move_one(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    movement: Movement,
    actor: &str,
) -> Result<Entry, Error> {
    let mut moved = move_points(conn, programme, vec![(member, movement)], actor).await?;
    moved.pop().ok_or(sqlx::Error::RowNotFound)?.map(Moved::entry)
}

/// Gives points many times, in a transaction of its own, again when it lost a race; each with what came of it.
pub async fn earn_batch(
    db: &Db,
    call: &Call,
    method: &str,
    earnings: &[(MemberId, Earning)],
) -> Result<Vec<Result<Moved, Error>>, Error> {
    let mut attempt = 1;
    loop {
        match earn_once(db, call, method, earnings).await {
            Err(Error::Database(error)) if koc_chassis::fault::is_race(&error) && attempt < MAX_ATTEMPTS => attempt += 1,
            done => return done,
        }
    }
}

async fn earn_once(
    db: &Db,
    call: &Call,
    method: &str,
    earnings: &[(MemberId, Earning)],
) -> Result<Vec<Result<Moved, Error>>, Error> {
    let mut tx = db.begin().await?;
    let movements = earnings.iter().map(|(member, earning)| (*member, Movement::Earn(earning.clone()))).collect();
    let moved = move_points(&mut tx, call.programme, movements, &call.caller.actor).await?;
    let earned = moved.iter().filter(|moved| matches!(moved, Ok(Moved::Now(_)))).count();
    if earned > 0 {
        let reason = format!("{earned} earnings of {} asked", earnings.len());
        store::audit::insert(&mut tx, call.into(), method, Uuid::now_v7(), &reason).await?;
    }
    tx.commit().await?;
    db.wake();
    Ok(moved)
}

/// Decides movements in order and writes what comes of them; a refusal of one leaves the others.
pub async fn move_points(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    movements: Vec<(MemberId, Movement)>,
    actor: &str,
) -> Result<Vec<Result<Moved, Error>>, Error> {
    let time_zone = store::programme::get(conn, programme).await?.ok_or(Error::ProgrammeNotFound { programme })?.time_zone;
    let members: BTreeSet<Uuid> = movements.iter().map(|(member, _)| member.0).collect();
    let members: Vec<Uuid> = members.into_iter().collect();
    let mut locked = redirect::lock_accounts(conn, programme, &members).await?;
    let mut accounts = std::mem::take(&mut locked.accounts);
    // A reversal stays with the id under which its entry is kept.
    let led = |(member, movement): (MemberId, Movement)| match movement {
        Movement::Reverse { .. } => (member, movement),
        _ => (locked.led(member), movement),
    };
    let movements: Vec<(MemberId, Movement)> = movements.into_iter().map(led).collect();
    let redeeming: Vec<Uuid> =
        movements.iter().filter(|(_, m)| matches!(m, Movement::Redeem { .. })).map(|(member, _)| member.0).collect();
    let suspended = match redeeming.is_empty() {
        true => Vec::new(),
        false => store::member::suspended(conn, programme, &redeeming).await?,
    };
    let mut known = Known::load(conn, programme, &movements, &locked).await?;
    let now = clock::now(conn).await?;
    store::points::load_due(conn, programme, &mut accounts, now, None).await?;
    let mut draws_of: HashMap<EntryId, Vec<Draw>> = HashMap::new();
    // What is asked of an account in all, so that each movement finds enough after those before it.
    let mut asked: HashMap<MemberId, i64> = HashMap::new();
    for (member, movement) in &movements {
        let points = match movement {
            Movement::Earn(_) => continue,
            Movement::Redeem { amount, .. } => *amount,
            Movement::Reverse { origin, amount } => amount.unwrap_or(origin.amount),
        };
        let sum = asked.entry(*member).or_default();
        *sum = sum.saturating_add(points);
    }
    for (member, movement) in &movements {
        let Some(account) = accounts.get_mut(member) else { continue };
        let mut also = Vec::new();
        match movement {
            Movement::Earn(_) => continue,
            Movement::Redeem { .. } => {}
            Movement::Reverse { origin, .. } => {
                let draws = store::points::draws(conn, programme, *member, origin.sequence).await?;
                also.push(origin.sequence);
                also.extend(draws.iter().map(|draw| draw.lot_sequence));
                draws_of.insert(origin.id, draws);
            }
        }
        let points = asked.get(member).copied().unwrap_or_default();
        let wanted = Wanted::Holding { points, not_due: now, also: &also };
        store::points::load_lots(conn, programme, account, wanted).await?;
    }

    let before = accounts.clone();
    let mut ids = EntryId::new;
    let mut act = Act { actor, now, ids: &mut ids };
    let mut moves = Moves::default();
    let mut answers = Vec::with_capacity(movements.len());
    for (member, movement) in movements {
        let Some(account) = accounts.get_mut(&member) else {
            answers.push(Err(Error::MemberNotFound { member: Some(member) }));
            continue;
        };
        if matches!(movement, Movement::Reverse { .. })
            && let Err(refusal) = locked.check_own(member)
        {
            answers.push(Err(refusal));
            continue;
        }
        if let Some(answer) = known.answer(member, &movement) {
            answers.push(answer);
            continue;
        }
        if matches!(movement, Movement::Redeem { .. }) && suspended.contains(&member) {
            answers.push(Err(Error::MemberSuspended { member }));
            continue;
        }
        let origin_draws = match &movement {
            Movement::Reverse { origin, .. } => draws_of.get(&origin.id).map_or(&[][..], Vec::as_slice),
            _ => &[],
        };
        let moved = moves.apply(account, movement, origin_draws, time_zone, &mut act);
        if let Ok(entry) = &moved {
            known.learn(entry.clone());
        }
        answers.push(moved.map(Moved::Now));
    }
    write(conn, programme, moves, &before, &accounts, act.actor).await?;
    Ok(answers)
}

/// What was made of sources and origins before.
struct Known {
    of_sources: HashMap<(MemberId, Kind, Source), Entry>,
    reversals: HashMap<EntryId, Entry>,
}

impl Known {
    async fn load(
        conn: &mut PgConnection,
        programme: ProgrammeId,
        movements: &[(MemberId, Movement)],
        locked: &LockedAccounts,
    ) -> Result<Self, sqlx::Error> {
        let (mut keys, mut reversals) = (Vec::new(), HashMap::new());
        for (member, movement) in movements {
            // What a source gave to a member that was merged later, it gave to the one that goes on.
            let all = || std::iter::once(*member).chain(locked.followers(*member));
            match movement {
                Movement::Earn(earning) => keys.extend(all().map(|member| (member, Kind::Earn, &earning.source))),
                Movement::Redeem { source, .. } => keys.extend(all().map(|member| (member, Kind::Redeem, source))),
                Movement::Reverse { origin, .. } => {
                    let reversal = store::points::reversal_of(conn, programme, *member, origin.sequence).await?;
                    reversals.extend(reversal.map(|entry| (origin.id, entry)));
                }
            }
        }
        let mut of_sources = HashMap::new();
        if !keys.is_empty() {
            let entries = store::points::of_sources(conn, programme, &keys).await?;
            of_sources
                .extend(entries.into_iter().map(|entry| ((locked.led(entry.member), entry.kind, entry.source.clone()), entry)));
        }
        Ok(Self { of_sources, reversals })
    }

    fn learn(&mut self, entry: Entry) {
        match entry.origin {
            Some(origin) => self.reversals.insert(origin.id, entry),
            None => self.of_sources.insert((entry.member, entry.kind, entry.source.clone()), entry),
        };
    }

    /// The answer when the same was asked before, or something else in its place.
    fn answer(&self, member: MemberId, movement: &Movement) -> Option<Result<Moved, Error>> {
        let of = |kind, source: &Source| self.of_sources.get(&(member, kind, source.clone()));
        let (entry, same) = match movement {
            Movement::Earn(earning) => {
                let entry = of(Kind::Earn, &earning.source)?;
                (entry, entry.amount == earning.amount && entry.expire_time == earning.expire_time)
            }
            Movement::Redeem { source, amount } => {
                let entry = of(Kind::Redeem, source)?;
                (entry, entry.amount == *amount)
            }
            Movement::Reverse { origin, amount } => {
                let entry = self.reversals.get(&origin.id)?;
                (entry, entry.amount == amount.unwrap_or(origin.amount))
            }
        };
        let refusal = match movement {
            _ if same => return Some(Ok(Moved::Before(entry.clone()))),
            Movement::Reverse { .. } => Refusal::Reversed { reversal: entry.id, amount: entry.amount },
            _ => Refusal::SourceUsed { entry: entry.id, amount: entry.amount },
        };
        Some(Err(refusal.into()))
    }
}

/// What movements have brought so far.
#[derive(Default)]
pub struct Moves {
    pub entries: Vec<Entry>,
    pub draws: Vec<(MemberId, Draw)>,
    pub gains: Gains,
}

impl Moves {
    /// Decides one movement. What is overdue expires first, unless the movement is refused for its form.
    fn apply(
        &mut self,
        account: &mut Account,
        movement: Movement,
        origin_draws: &[Draw],
        time_zone: Tz,
        act: &mut Act<'_>,
    ) -> Result<Entry, Error> {
        if let Movement::Earn(earning) = &movement {
            earning.check_time(act.now)?;
        }
        self.entries.extend(account.expire_due(act));
        let entry = match movement {
            Movement::Earn(earning) => {
                let entry = account.earn(earning, act);
                self.gain(Month::of(act.now, time_zone), entry.member, entry.amount);
                entry
            }
            Movement::Redeem { source, amount } => {
                let (entry, draws) = account.redeem(source, amount, act)?;
                self.draws.extend(draws.into_iter().map(|draw| (entry.member, draw)));
                entry
            }
            Movement::Reverse { origin, amount } => {
                let entry = account.reverse(&origin, origin_draws, amount.unwrap_or(origin.amount), act)?;
                if origin.kind == Kind::Earn {
                    let month = Month::of(origin.entry_time, time_zone);
                    let kept = month >= Month::of(act.now, time_zone).first_kept();
                    self.gain_board(Board::Lifetime, entry.member, -entry.amount);
                    if kept {
                        self.gain_board(Board::Month(month), entry.member, -entry.amount);
                    }
                }
                entry
            }
        };
        self.entries.push(entry.clone());
        Ok(entry)
    }

    fn gain(&mut self, month: Month, member: MemberId, points: i64) {
        self.gain_board(Board::Lifetime, member, points);
        self.gain_board(Board::Month(month), member, points);
    }

    fn gain_board(&mut self, board: Board, member: MemberId, points: i64) {
        *self.gains.entry((board, member)).or_default() += points;
    }
}

/// Writes what was moved between accounts that are locked: entries, lots, accounts, places on leaderboards, facts, and badges by points.
pub async fn write(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    moves: Moves,
    before: &BTreeMap<MemberId, Account>,
    after: &BTreeMap<MemberId, Account>,
    actor: &str,
) -> Result<(), Error> {
    let Some(now) = moves.entries.last().map(|entry| entry.entry_time) else { return Ok(()) };
    store::points::write(conn, programme, before, after, &moves.entries, &moves.draws).await?;
    rank_members::add(conn, programme, &moves.gains, after).await?;
    let mut facts = points_changed(programme, &moves.entries);
    let moved: Vec<(&Account, i64)> = after
        .values()
        .filter_map(|account| Some((account, before.get(&account.member)?.lifetime)))
        .filter(|(account, was)| account.lifetime != *was)
        .collect();
    if !moved.is_empty() {
        let titles = store::title::active(conn, programme).await?;
        facts.extend(moved.iter().filter_map(|(account, was)| title_changed(programme, &titles, account, *was)));
    }
    outbox::append(conn, &facts).await?;
    let risen: Vec<(&Account, i64)> = moved.into_iter().filter(|(account, was)| account.lifetime > *was).collect();
    if !risen.is_empty() {
        let badges = award_badges::by_rule(conn, programme).await?;
        let meets = |badge: &Badge, account: &Account, was: i64| badge.is_met_between(was, account.lifetime);
        let members: Vec<Uuid> = risen
            .into_iter()
            .filter(|(account, was)| badges.iter().any(|badge| meets(badge, account, *was)))
            .map(|(account, _)| account.member.0)
            .collect();
        award_badges::award(conn, programme, &members, &badges, actor, now).await?;
    }
    Ok(())
}

/// The facts that tell of entries.
pub fn points_changed(programme: ProgrammeId, entries: &[Entry]) -> Vec<NewFact> {
    let fact = |entry: &Entry| {
        let fact = pb::PointsChanged {
            member_id: entry.member.to_string(),
            entry_id: entry.id.to_string(),
            sequence: entry.sequence,
            kind: entry.kind.name().to_owned(),
            change: entry.change,
            balance_after: entry.balance_after,
            lifetime_after: entry.lifetime_after,
        };
        NewFact::new(programme, entry.member.0, &fact)
    };
    entries.iter().map(fact).collect()
}

fn title_changed(programme: ProgrammeId, titles: &TitleSet, account: &Account, was: i64) -> Option<NewFact> {
    let id = |title: Option<&Title>| title.map(|title| title.title_id.clone()).unwrap_or_default();
    let (from_title_id, to_title_id) = (id(titles.of(was).0), id(titles.of(account.lifetime).0));
    (from_title_id != to_title_id).then(|| {
        let member_id = account.member.to_string();
        let fact = pb::MemberTitleChanged { member_id, from_title_id, to_title_id, title_set_version: titles.version };
        NewFact::new(programme, account.member.0, &fact)
    })
}
