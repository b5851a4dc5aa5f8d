-- Rules by which members fall as well as rise, drafts of them, trials, and what is kept of each member's standing.

-- All rules of a version. NULL for versions from before members could fall: their three columns say all.
ALTER TABLE tier_policy
    ADD COLUMN rules jsonb,
    ADD COLUMN effective_time timestamptz,  -- from when on it is in force; NULL: from its create_time
    ADD COLUMN authors text[] NOT NULL DEFAULT '{}';  -- who wrote its draft; `actor` brought it into force

CREATE TABLE tier_policy_draft (
    programme_id uuid NOT NULL CONSTRAINT tier_policy_draft_programme REFERENCES programme,
    draft_id uuid NOT NULL,            -- UUIDv7: its order is that of creation
    rules jsonb NOT NULL,
    reason text NOT NULL,              -- why, as its last author said
    authors text[] NOT NULL,           -- who wrote and changed it: none of them may bring it into force
    revision bigint NOT NULL,          -- from 1; rises with each change
    discarded boolean NOT NULL,
    activated_version integer,         -- the version that it became; NULL while it is open, and when it was discarded
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT tier_policy_draft_pkey PRIMARY KEY (programme_id, draft_id),
    CONSTRAINT tier_policy_draft_closed_once CHECK (NOT (discarded AND activated_version IS NOT NULL))
);
CREATE INDEX tier_policy_draft_open ON tier_policy_draft (programme_id) WHERE NOT discarded AND activated_version IS NULL;

-- Members are never deleted, and whoever writes of one has locked it: there are no foreign keys to it here, for which its writers would wait.

-- What measurement found in each period: a reading replaces what was said of the same period.
CREATE TABLE tier_reading (
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    as_of timestamptz NOT NULL,        -- end of the period measured
    level_mean double precision,       -- in standard deviations of the members' levels; NULL when only a probability was told
    level_sd double precision,
    told_probability double precision NOT NULL,  -- 0 to 1; counts without a level
    weight double precision NOT NULL,  -- of the evidence
    output_count integer NOT NULL,
    decision_id uuid NOT NULL,         -- measurement's decision
    CONSTRAINT tier_reading_pkey PRIMARY KEY (programme_id, member_id, as_of),
    CONSTRAINT tier_reading_level CHECK ((level_mean IS NULL) = (level_sd IS NULL))
);

-- What is kept of a member's tier beside the tier itself. Members that were never measured and stand where all begin need none.
CREATE TABLE tier_standing (
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    counted_to timestamptz,            -- readings up to here have moved the member, or were overruled, and count no more
    review_since timestamptz,          -- since when it is under review; NULL while it is not
    review_as_of timestamptz,          -- end of the period that brought the review
    review_dormant boolean NOT NULL DEFAULT false,  -- whether it had no output for long; otherwise its level was low
    held boolean NOT NULL DEFAULT false,  -- a person holds it in its tier
    hold_end timestamptz,              -- until when; NULL: until somebody ends it
    risk text,                         -- what threatens its tier if nothing changes: REVIEW, LOW, FALL or DORMANT
    risk_time timestamptz,             -- when at the earliest
    CONSTRAINT tier_standing_pkey PRIMARY KEY (programme_id, member_id),
    CONSTRAINT tier_standing_review CHECK ((review_since IS NULL) = (review_as_of IS NULL)),
    CONSTRAINT tier_standing_risk CHECK ((risk IS NULL) = (risk_time IS NULL))
);
CREATE INDEX tier_standing_by_risk ON tier_standing (programme_id, risk_time, member_id) WHERE risk IS NOT NULL;
CREATE INDEX tier_standing_dormant ON tier_standing (programme_id, member_id, risk_time) WHERE risk = 'DORMANT';

INSERT INTO tier_reading
SELECT programme_id, member_id, as_of, NULL, NULL, promote_probability, output_count, output_count, decision_id
FROM tier_proposal;
INSERT INTO tier_standing (programme_id, member_id, counted_to)
SELECT programme_id, member_id, CASE WHEN consume_time IS NOT NULL THEN as_of END
FROM tier_proposal;

-- Moves are of several kinds now. Those of members that stay in their tier: REVIEWED, CLEARED, and ASSIGNED or HOLD_ENDED for a hold.
ALTER TABLE tier_move
    ADD COLUMN outcome text NOT NULL DEFAULT 'ROSE',
    ADD COLUMN readings jsonb NOT NULL DEFAULT '[]';  -- the measurements it was judged by, newest first

-- A trial of a draft against all members.
CREATE TABLE tier_dry_run (
    programme_id uuid NOT NULL,
    dry_run_id uuid NOT NULL,
    draft_id uuid NOT NULL,
    rules jsonb NOT NULL,              -- of the draft when it began
    as_of timestamptz NOT NULL,        -- when it began: members are judged as of then
    judged bigint NOT NULL,            -- members so far
    outcomes jsonb NOT NULL,           -- [{outcome, from, to, members}]
    rooms jsonb NOT NULL,              -- how many more members tiers with a capacity take, moved on with each part
    after_member_id uuid NOT NULL,     -- how far it is
    actor text NOT NULL,
    create_time timestamptz NOT NULL,
    end_time timestamptz,              -- NULL while it runs
    CONSTRAINT tier_dry_run_pkey PRIMARY KEY (programme_id, dry_run_id),
    CONSTRAINT tier_dry_run_draft FOREIGN KEY (programme_id, draft_id) REFERENCES tier_policy_draft
);
CREATE INDEX tier_dry_run_running ON tier_dry_run (programme_id) WHERE end_time IS NULL;
CREATE INDEX tier_dry_run_by_time ON tier_dry_run (create_time);

-- The first members of each outcome of a trial but STAYED.
CREATE TABLE tier_dry_run_member (
    programme_id uuid NOT NULL,
    dry_run_id uuid NOT NULL,
    member_id uuid NOT NULL,
    outcome text NOT NULL,
    from_tier_id text NOT NULL,
    to_tier_id text NOT NULL,
    reason text NOT NULL,              -- with figures, without personal data
    readings jsonb NOT NULL,
    CONSTRAINT tier_dry_run_member_pkey PRIMARY KEY (programme_id, dry_run_id, member_id),
    CONSTRAINT tier_dry_run_member_run FOREIGN KEY (programme_id, dry_run_id) REFERENCES tier_dry_run ON DELETE CASCADE
);
CREATE INDEX tier_dry_run_member_by_member ON tier_dry_run_member (programme_id, member_id);
