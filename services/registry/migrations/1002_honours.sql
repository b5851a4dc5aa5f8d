-- Honours: points, titles, badges, the leaderboard. As everywhere, tables lead with the programme.

-- A member's points as they are now, and the row that is locked to change any of the member's honours. Made with the first of them.
CREATE TABLE points_account (
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    balance bigint NOT NULL,           -- the sum of the entries, and of what is left in the lots
    lifetime_points bigint NOT NULL,   -- all that was earned, less what of it was reversed
    last_sequence bigint NOT NULL,     -- of the member's last entry; 0 before the first
    listed boolean NOT NULL,           -- whether leaderboards show the member
    CONSTRAINT points_account_pkey PRIMARY KEY (programme_id, member_id),
    CONSTRAINT points_account_member FOREIGN KEY (programme_id, member_id) REFERENCES member,
    CONSTRAINT points_account_balance CHECK (balance >= 0),
    CONSTRAINT points_account_lifetime CHECK (lifetime_points >= 0)
);

-- The ledger. Append-only.
CREATE TABLE points_entry (
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    sequence bigint NOT NULL,          -- dense per member, from 1
    entry_id uuid NOT NULL,            -- UUIDv7
    kind text NOT NULL,
    amount bigint NOT NULL,            -- what was asked: earned, redeemed, expired, or to be reversed
    change bigint NOT NULL,            -- what it added to the balance; below zero when it took
    balance_after bigint NOT NULL,
    lifetime_after bigint NOT NULL,
    source text NOT NULL,              -- a reference such as assignment/…; that of the origin when there is one
    reason_code text NOT NULL,
    origin_sequence bigint,            -- the entry that is reversed, or whose lot expired
    expire_time timestamptz,           -- of an earning: when what is left of it expires; NULL for never
    actor text NOT NULL,
    entry_time timestamptz NOT NULL,
    CONSTRAINT points_entry_pkey PRIMARY KEY (programme_id, member_id, sequence),
    CONSTRAINT points_entry_account FOREIGN KEY (programme_id, member_id) REFERENCES points_account,
    CONSTRAINT points_entry_origin FOREIGN KEY (programme_id, member_id, origin_sequence) REFERENCES points_entry,
    CONSTRAINT points_entry_kind CHECK (kind IN ('EARN', 'REDEEM', 'EXPIRE', 'REVERSE')),
    CONSTRAINT points_entry_amount CHECK (amount > 0 AND abs(change) <= amount),
    CONSTRAINT points_entry_balance CHECK (balance_after >= 0 AND lifetime_after >= 0)
);
CREATE UNIQUE INDEX points_entry_id ON points_entry (programme_id, entry_id);
-- What makes a retry harmless for good: a source earns once and redeems once, an entry is reversed once.
CREATE UNIQUE INDEX points_entry_source ON points_entry (programme_id, member_id, source, reason_code, kind)
    WHERE kind IN ('EARN', 'REDEEM');
CREATE UNIQUE INDEX points_entry_reversal ON points_entry (programme_id, member_id, origin_sequence) WHERE kind = 'REVERSE';

-- What is left of each earning.
CREATE TABLE points_lot (
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    sequence bigint NOT NULL,          -- of the earning
    amount bigint NOT NULL,            -- what was earned
    remaining bigint NOT NULL,
    shortfall bigint NOT NULL,         -- what a reversal of the earning fell short of: what comes back to the lot makes it up first
    expire_time timestamptz,           -- NULL for never
    CONSTRAINT points_lot_pkey PRIMARY KEY (programme_id, member_id, sequence),
    CONSTRAINT points_lot_entry FOREIGN KEY (programme_id, member_id, sequence) REFERENCES points_entry,
    CONSTRAINT points_lot_remaining CHECK (remaining BETWEEN 0 AND amount),
    CONSTRAINT points_lot_shortfall CHECK (shortfall BETWEEN 0 AND amount)
);
CREATE INDEX points_lot_open ON points_lot (programme_id, member_id, expire_time, sequence) WHERE remaining > 0;
CREATE INDEX points_lot_due ON points_lot (expire_time) WHERE remaining > 0;

-- Which lots a redemption took from. Append-only.
CREATE TABLE points_draw (
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    sequence bigint NOT NULL,          -- of the redemption
    lot_sequence bigint NOT NULL,
    amount bigint NOT NULL CONSTRAINT points_draw_amount CHECK (amount > 0),
    CONSTRAINT points_draw_pkey PRIMARY KEY (programme_id, member_id, sequence, lot_sequence),
    CONSTRAINT points_draw_entry FOREIGN KEY (programme_id, member_id, sequence) REFERENCES points_entry,
    CONSTRAINT points_draw_lot FOREIGN KEY (programme_id, member_id, lot_sequence) REFERENCES points_lot
);

-- Versions of a programme's titles; the highest holds. Append-only.
CREATE TABLE title_set (
    programme_id uuid NOT NULL CONSTRAINT title_set_programme REFERENCES programme,
    version integer NOT NULL,          -- from 1, dense
    titles jsonb NOT NULL,             -- [{title_id, display_name, min_lifetime_points}], lowest first
    reason text NOT NULL,              -- why this version was made
    actor text NOT NULL,               -- who made it
    create_time timestamptz NOT NULL,
    CONSTRAINT title_set_pkey PRIMARY KEY (programme_id, version)
);

-- Versions of badges; the highest of each holds. Append-only.
CREATE TABLE badge_version (
    programme_id uuid NOT NULL,
    badge_id text COLLATE "C" NOT NULL,
    version integer NOT NULL,          -- from 1, dense
    display_name text NOT NULL,
    description text NOT NULL,
    conditions jsonb NOT NULL,         -- all must hold; [] for a badge that is given by hand only
    repeatable boolean NOT NULL,       -- whether a member may hold it more than once
    retired boolean NOT NULL,          -- no longer given
    reason text NOT NULL,              -- why this version was made
    actor text NOT NULL,               -- who made it
    create_time timestamptz NOT NULL,
    CONSTRAINT badge_version_pkey PRIMARY KEY (programme_id, badge_id, version),
    CONSTRAINT badge_version_programme FOREIGN KEY (programme_id) REFERENCES programme
);

-- Badges that were given. Append-only.
CREATE TABLE badge_award (
    programme_id uuid NOT NULL,
    award_id uuid NOT NULL,            -- UUIDv7: its order is that of awards
    member_id uuid NOT NULL,
    badge_id text COLLATE "C" NOT NULL,
    badge_version integer NOT NULL,
    evidence jsonb,                    -- what the conditions were met by; NULL when given by hand
    source text,                       -- a reference such as assignment/…; NULL when given by its conditions
    actor text NOT NULL,               -- who gave it, or moved what its conditions look at
    award_time timestamptz NOT NULL,
    CONSTRAINT badge_award_pkey PRIMARY KEY (programme_id, award_id),
    CONSTRAINT badge_award_badge FOREIGN KEY (programme_id, badge_id, badge_version) REFERENCES badge_version,
    CONSTRAINT badge_award_account FOREIGN KEY (programme_id, member_id) REFERENCES points_account,
    CONSTRAINT badge_award_origin CHECK ((evidence IS NULL) <> (source IS NULL))
);
CREATE INDEX badge_award_by_member ON badge_award (programme_id, member_id, award_id);
-- Its conditions give a badge once to a member, and so does each source.
CREATE UNIQUE INDEX badge_award_by_rule ON badge_award (programme_id, member_id, badge_id) WHERE source IS NULL;
CREATE UNIQUE INDEX badge_award_source ON badge_award (programme_id, member_id, badge_id, source) WHERE source IS NOT NULL;

-- Awards that were taken back. Append-only.
CREATE TABLE badge_revocation (
    programme_id uuid NOT NULL,
    award_id uuid NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    revoke_time timestamptz NOT NULL,
    CONSTRAINT badge_revocation_pkey PRIMARY KEY (programme_id, award_id),
    CONSTRAINT badge_revocation_award FOREIGN KEY (programme_id, award_id) REFERENCES badge_award
);

-- Members' points by board. Written in the transaction of the points.
CREATE TABLE leaderboard_score (
    programme_id uuid NOT NULL,
    board text COLLATE "C" NOT NULL,   -- LIFETIME, or a month such as 2026-11
    member_id uuid NOT NULL,
    points bigint NOT NULL CONSTRAINT leaderboard_score_points CHECK (points >= 0),
    listed boolean NOT NULL,           -- as in points_account
    CONSTRAINT leaderboard_score_pkey PRIMARY KEY (programme_id, board, member_id)
);
-- Read backwards: from the top.
CREATE INDEX leaderboard_score_rank ON leaderboard_score (programme_id, board, points, member_id) WHERE listed AND points > 0;

-- How many members are ranked in each range of points, so that a rank is a sum over few rows. A transaction that moves points would have
-- to change the same few rows as all others; so it leaves what it changes in leaderboard_shift, and one worker at a time adds that up here.
CREATE TABLE leaderboard_bucket (
    programme_id uuid NOT NULL,
    board text COLLATE "C" NOT NULL,
    bucket integer NOT NULL,           -- rises with the points
    members bigint NOT NULL CONSTRAINT leaderboard_bucket_members CHECK (members >= 0),
    CONSTRAINT leaderboard_bucket_pkey PRIMARY KEY (programme_id, board, bucket)
);

-- What is not yet added to leaderboard_bucket. A count is the sum over both tables, and so exact at any instant.
CREATE TABLE leaderboard_shift (
    shift_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT leaderboard_shift_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    board text COLLATE "C" NOT NULL,
    bucket integer NOT NULL,
    members bigint NOT NULL            -- how many came, less how many went
);
CREATE INDEX leaderboard_shift_board ON leaderboard_shift (programme_id, board, bucket);
