-- Erasure: whose data was destroyed, who has to follow, and whom no sync brings back. A replica of the version before this one sees an
-- erased member as a suspended one of whom nothing is known, and knows no suppression: erase nobody while one is still at work.

ALTER TABLE member ADD COLUMN erase_time timestamptz;      -- when its data was destroyed; it is SUSPENDED from then on
-- Whoever else writes of one fails. Nobody is erased yet: there is nothing to look through.
ALTER TABLE member ADD CONSTRAINT member_erased CHECK (erase_time IS NULL OR (
    state = 'SUSPENDED' AND display_name = '' AND email = '' AND phone = '' AND region_code = '' AND city = '' AND channels = '[]'
    AND vehicles = '[]' AND motivations = '[]' AND tags = '[]' AND provenance = '{}')) NOT VALID;

-- Persons whose data was destroyed.
CREATE TABLE erasure (
    programme_id uuid NOT NULL,
    erasure_id uuid NOT NULL,          -- UUIDv7
    member_id uuid NOT NULL,           -- of merged ones the one that the others led to
    member_ids uuid[] NOT NULL,        -- all ids of the person
    ground text NOT NULL CONSTRAINT erasure_ground
        CHECK (ground IN ('REQUESTED', 'CONSENT_WITHDRAWN', 'NOT_NEEDED', 'UNLAWFUL', 'LEGAL_DUTY')),
    erased jsonb NOT NULL,             -- name -> rows that were destroyed in the registry
    actor text NOT NULL,
    erase_time timestamptz NOT NULL,
    deadline_time timestamptz NOT NULL, -- until when all must have followed
    complete_time timestamptz,         -- when the last one had; NULL while somebody has not
    CONSTRAINT erasure_pkey PRIMARY KEY (programme_id, erasure_id),
    CONSTRAINT erasure_member UNIQUE (programme_id, member_id)
);
CREATE INDEX erasure_list ON erasure (programme_id, (complete_time IS NOT NULL), deadline_time, erasure_id);
CREATE INDEX erasure_overdue ON erasure (deadline_time) WHERE complete_time IS NULL;

-- Who has to follow an erasure: those that the service was configured with when it happened.
CREATE TABLE erasure_duty (
    programme_id uuid NOT NULL,
    erasure_id uuid NOT NULL,
    consumer text COLLATE "C" NOT NULL, -- e.g. budget
    erased jsonb,                      -- name -> rows that it destroyed; NULL before it has followed
    actor text,                        -- who said so; NULL before
    acknowledge_time timestamptz,      -- NULL before
    CONSTRAINT erasure_duty_pkey PRIMARY KEY (programme_id, erasure_id, consumer),
    CONSTRAINT erasure_duty_erasure FOREIGN KEY (programme_id, erasure_id) REFERENCES erasure,
    CONSTRAINT erasure_duty_done CHECK ((acknowledge_time IS NULL) = (erased IS NULL) AND (acknowledge_time IS NULL) = (actor IS NULL))
);

-- By what an erased person would be known, as keyed hashes. The keys are not in the database.
CREATE TABLE suppression (
    programme_id uuid NOT NULL,
    key_id text COLLATE "C" NOT NULL,  -- which key
    digest bytea NOT NULL CONSTRAINT suppression_digest CHECK (length(digest) = 32), -- HMAC-SHA-256 of the identity, address or number
    erasure_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT suppression_pkey PRIMARY KEY (programme_id, key_id, digest, erasure_id), -- two persons may share a number
    CONSTRAINT suppression_erasure FOREIGN KEY (programme_id, erasure_id) REFERENCES erasure
);
CREATE INDEX suppression_of_erasure ON suppression (programme_id, erasure_id);

-- The keys that were ever used: a service that lacks one of them would let erased persons in, and lets in nobody.
CREATE TABLE suppression_key (
    key_id text COLLATE "C" CONSTRAINT suppression_key_pkey PRIMARY KEY,
    create_time timestamptz NOT NULL
);

-- Persons who were let in again. Append-only.
CREATE TABLE suppression_lift (
    programme_id uuid NOT NULL,
    erasure_id uuid NOT NULL,
    lift_time timestamptz NOT NULL,
    consent_reference text NOT NULL,   -- where the new consent is kept, without personal data
    lifted_count integer NOT NULL,
    actor text NOT NULL,
    CONSTRAINT suppression_lift_pkey PRIMARY KEY (programme_id, erasure_id, lift_time),
    CONSTRAINT suppression_lift_erasure FOREIGN KEY (programme_id, erasure_id) REFERENCES erasure
);

-- Takes the words out of what is otherwise never changed: reasons of moves, of badges taken back, and the trail of these members.
-- Of members alone that were erased: with it the application role changes no other record. Gives how many rows it changed.
CREATE FUNCTION erase_words(of_programme uuid, of_members uuid[]) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
    gone uuid[] := ARRAY(
        SELECT m.member_id
        FROM member AS m
        WHERE m.programme_id = of_programme AND m.member_id = ANY (of_members) AND m.erase_time IS NOT NULL
    );
    step bigint;
    changed bigint := 0;
BEGIN
    UPDATE tier_move AS t
    SET reason = ''
    WHERE t.programme_id = of_programme AND t.member_id = ANY (gone) AND t.reason <> '';
    GET DIAGNOSTICS step = ROW_COUNT;
    changed := changed + step;
    UPDATE badge_revocation AS r
    SET reason = ''
    FROM badge_award AS a
    WHERE a.programme_id = of_programme AND a.member_id = ANY (gone) AND r.programme_id = a.programme_id AND r.award_id = a.award_id
      AND r.reason <> '';
    GET DIAGNOSTICS step = ROW_COUNT;
    changed := changed + step;
    RETURN changed + erase_trail(of_programme, gone);
END $$;
REVOKE EXECUTE ON FUNCTION erase_words(uuid, uuid[]) FROM PUBLIC;
