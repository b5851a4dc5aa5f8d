-- What the task service keeps: briefs and their revisions, tasks, assignments, what was handed in and how it was judged.
-- Lock order: brief; task before assignment before job.

CREATE TABLE brief (
    brief_id uuid CONSTRAINT brief_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    display_name text NOT NULL,
    create_time timestamptz NOT NULL
);
CREATE INDEX brief_programme ON brief (programme_id, brief_id);

-- Published revisions. Append-only for the application role: a change is a new revision.
CREATE TABLE brief_revision (
    brief_id uuid NOT NULL CONSTRAINT brief_revision_brief REFERENCES brief,
    revision integer NOT NULL CONSTRAINT brief_revision_positive CHECK (revision >= 1),
    content jsonb NOT NULL,            -- what it says, as the domain's BriefContent
    publish_time timestamptz NOT NULL,
    CONSTRAINT brief_revision_pkey PRIMARY KEY (brief_id, revision)
);

-- The one revision of a brief that is not published yet; it goes away when it is.
CREATE TABLE brief_draft (
    brief_id uuid CONSTRAINT brief_draft_pkey PRIMARY KEY CONSTRAINT brief_draft_brief REFERENCES brief,
    revision integer NOT NULL CONSTRAINT brief_draft_positive CHECK (revision >= 1), -- the number it gets when published
    content jsonb NOT NULL             -- as in brief_revision
);

CREATE TABLE task (
    task_id uuid CONSTRAINT task_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    display_name text NOT NULL,
    state text NOT NULL CONSTRAINT task_state CHECK (state IN ('DRAFT', 'PUBLISHED', 'PAUSED', 'CLOSED', 'CANCELLED')),
    brief_id uuid NOT NULL,
    brief_revision integer NOT NULL,
    tier_ids text[] NOT NULL,          -- only these tiers; empty for all
    region_codes text[] NOT NULL,      -- only these regions, ISO 3166-2; empty for all
    capacity integer NOT NULL,         -- how many assignments may be open or completed
    filled integer NOT NULL DEFAULT 0, -- how many are; counted here, so that an offer need not count rows
    reward_minor bigint NOT NULL CONSTRAINT task_reward CHECK (reward_minor > 0), -- per assignment, in minor units of currency
    currency text NOT NULL,            -- ISO 4217, the programme's
    envelope_id uuid NOT NULL,         -- whose money it is, in the budget service
    offer_deadline timestamptz NOT NULL,
    delivery_deadline timestamptz NOT NULL,
    review_days integer NOT NULL,      -- how long a review may take
    create_time timestamptz NOT NULL,
    CONSTRAINT task_brief_revision FOREIGN KEY (brief_id, brief_revision) REFERENCES brief_revision,
    CONSTRAINT task_deadlines CHECK (delivery_deadline > offer_deadline),
    CONSTRAINT task_capacity CHECK (filled BETWEEN 0 AND capacity)
);
CREATE INDEX task_programme ON task (programme_id, task_id);

CREATE TABLE assignment (
    assignment_id uuid CONSTRAINT assignment_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    task_id uuid NOT NULL CONSTRAINT assignment_task REFERENCES task,
    member_id uuid NOT NULL,
    tier_id text NOT NULL,             -- the member's when it was offered
    brief_id uuid NOT NULL,
    brief_revision integer NOT NULL,   -- as it was when offered
    reward_minor bigint NOT NULL CONSTRAINT assignment_reward CHECK (reward_minor > 0), -- minor units of currency
    currency text NOT NULL,            -- ISO 4217
    offer_deadline timestamptz NOT NULL,
    delivery_deadline timestamptz NOT NULL,
    review_days integer NOT NULL,
    state text NOT NULL CONSTRAINT assignment_state CHECK (state IN ('OFFERED', 'RESERVING', 'IN_PROGRESS', 'SUBMITTED',
        'CHANGES_REQUESTED', 'COMPLETED', 'UNFUNDED', 'DECLINED', 'REJECTED', 'EXPIRED')),
    settlement text NOT NULL CONSTRAINT assignment_settlement CHECK (settlement IN ('NONE', 'HELD', 'SETTLING', 'SETTLED')),
    reservation_id uuid,               -- the hold in the budget service
    unfunded jsonb,                    -- why there is no money: reason and figures of the budget's refusal
    submission_id uuid,                -- the latest submission, while it is judged and once it is completed
    accepted_keys text[],              -- deliverables accepted of a LIVE submission
    earned_minor bigint,               -- what they earn, in minor units of currency
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT assignment_brief_revision FOREIGN KEY (brief_id, brief_revision) REFERENCES brief_revision,
    CONSTRAINT assignment_held CHECK ((settlement = 'HELD') = (state IN ('IN_PROGRESS', 'SUBMITTED', 'CHANGES_REQUESTED'))),
    -- Only a DECLINED one may wait for the answer to a Reserve that was on its way.
    CONSTRAINT assignment_reservation CHECK (CASE settlement
        WHEN 'NONE' THEN reservation_id IS NULL
        WHEN 'SETTLING' THEN reservation_id IS NOT NULL OR state = 'DECLINED'
        ELSE reservation_id IS NOT NULL END),
    CONSTRAINT assignment_unfunded CHECK ((state = 'UNFUNDED') = (unfunded IS NOT NULL)),
    CONSTRAINT assignment_submission CHECK ((state IN ('SUBMITTED', 'COMPLETED')) = (submission_id IS NOT NULL)),
    CONSTRAINT assignment_accepted CHECK (state <> 'COMPLETED' OR accepted_keys IS NOT NULL),
    CONSTRAINT assignment_earned CHECK ((state = 'COMPLETED') = (earned_minor IS NOT NULL)),
    CONSTRAINT assignment_earned_range CHECK (earned_minor BETWEEN 0 AND reward_minor)
);
CREATE INDEX assignment_programme ON assignment (programme_id, assignment_id);
CREATE INDEX assignment_of_task ON assignment (programme_id, task_id, assignment_id);
CREATE INDEX assignment_of_member ON assignment (programme_id, member_id, assignment_id);
-- A member has at most one open or completed assignment in a task.
CREATE UNIQUE INDEX assignment_open ON assignment (task_id, member_id)
    WHERE state NOT IN ('UNFUNDED', 'DECLINED', 'REJECTED', 'EXPIRED');

CREATE TABLE submission (
    submission_id uuid CONSTRAINT submission_pkey PRIMARY KEY,
    assignment_id uuid NOT NULL CONSTRAINT submission_assignment REFERENCES assignment,
    stage text NOT NULL CONSTRAINT submission_stage CHECK (stage IN ('CONCEPT', 'DRAFT', 'LIVE')),
    submit_time timestamptz NOT NULL
);
CREATE INDEX submission_of_assignment ON submission (assignment_id, submission_id);

CREATE TABLE submitted_deliverable (
    submission_id uuid NOT NULL CONSTRAINT submitted_deliverable_submission REFERENCES submission,
    deliverable_key text NOT NULL,
    place integer NOT NULL,            -- in the order it was handed in, from 1
    platform text,                     -- where it is; NULL when on none
    publish_time timestamptz,
    url text,                          -- personal: erased with the member
    body text,                         -- personal, the text or note handed in: erased with the member
    CONSTRAINT submitted_deliverable_pkey PRIMARY KEY (submission_id, deliverable_key)
);

-- The last verdict on a submission; earlier ones are in the audit.
CREATE TABLE review (
    submission_id uuid CONSTRAINT review_pkey PRIMARY KEY CONSTRAINT review_submission REFERENCES submission,
    verdict text NOT NULL CONSTRAINT review_verdict CHECK (verdict IN ('APPROVED', 'CHANGES_REQUESTED', 'REJECTED')),
    accepted_keys text[] NOT NULL,     -- of an approved one
    remark text,                       -- personal, what the reviewer said: erased with the member
    reviewer text NOT NULL,            -- the actor
    review_time timestamptz NOT NULL
);
