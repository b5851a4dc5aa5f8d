-- The registry: programmes, their members and tiers. Every table leads with the programme, so that it can be partitioned by it.

CREATE TABLE programme (
    programme_id uuid CONSTRAINT programme_pkey PRIMARY KEY,
    display_name text NOT NULL,
    currency_code text NOT NULL,       -- ISO 4217
    time_zone text NOT NULL,           -- IANA name
    tier_policy_version integer NOT NULL,  -- the active version; the row is locked to make a new one and to evaluate
    create_time timestamptz NOT NULL
);

CREATE TABLE tier (
    programme_id uuid NOT NULL CONSTRAINT tier_programme REFERENCES programme,
    tier_id text NOT NULL,
    rank integer NOT NULL CONSTRAINT tier_rank_positive CHECK (rank > 0),  -- 1 is the lowest; without gaps
    resource_class text NOT NULL,      -- INCLUSIVE, INCENTIVE or EXCLUSIVE
    CONSTRAINT tier_pkey PRIMARY KEY (programme_id, tier_id),
    CONSTRAINT tier_rank UNIQUE (programme_id, rank)
);

-- Versions of the rules by which members rise. Append-only.
CREATE TABLE tier_policy (
    programme_id uuid NOT NULL CONSTRAINT tier_policy_programme REFERENCES programme,
    version integer NOT NULL,          -- from 1, dense
    min_promote_probability double precision NOT NULL,  -- 0 to 1
    min_stay_days integer NOT NULL,
    min_outputs integer NOT NULL,
    reason text NOT NULL,              -- why this version was made
    actor text NOT NULL,               -- who made it
    create_time timestamptz NOT NULL,
    CONSTRAINT tier_policy_pkey PRIMARY KEY (programme_id, version)
);

-- Text fields are empty, and lists are [], where nothing is known.
CREATE TABLE member (
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,           -- UUIDv7: its order is that of creation
    display_name text NOT NULL,
    email text NOT NULL,
    phone text NOT NULL,               -- E.164
    region_code text NOT NULL,         -- ISO 3166-2
    city text NOT NULL,
    channels jsonb NOT NULL,           -- [{platform, handle, followers}]
    vehicles jsonb NOT NULL,           -- [{model, vin}]
    motivations jsonb NOT NULL,        -- names, sorted
    tags jsonb NOT NULL,               -- labels, sorted
    consents jsonb NOT NULL,           -- [{purpose, granted}], sorted by purpose
    provenance jsonb NOT NULL,         -- field -> {time, source} of its last write; fields never written are absent
    trust_level text NOT NULL,
    tier_id text NOT NULL,
    tier_since timestamptz NOT NULL,   -- when it entered this tier
    version bigint NOT NULL,           -- from 1; rises with each change that callers can see
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT member_pkey PRIMARY KEY (programme_id, member_id),
    CONSTRAINT member_tier FOREIGN KEY (programme_id, tier_id) REFERENCES tier,
    CONSTRAINT member_trust_level CHECK (trust_level IN ('NEW', 'PROVEN', 'TRUSTED', 'PARTNER'))
);
CREATE INDEX member_by_tier ON member (programme_id, tier_id, member_id);
CREATE INDEX member_by_region ON member (programme_id, region_code, member_id);

-- How source systems know members. An identity is claimed before its member is written, in one transaction.
CREATE TABLE external_identity (
    programme_id uuid NOT NULL,
    source_system text NOT NULL,
    external_id text COLLATE "C" NOT NULL,
    member_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT external_identity_key PRIMARY KEY (programme_id, source_system, external_id),
    CONSTRAINT external_identity_member FOREIGN KEY (programme_id, member_id) REFERENCES member DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX external_identity_by_member ON external_identity (programme_id, member_id);

-- What the last measurement said of a member.
CREATE TABLE value_profile (
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    scores jsonb NOT NULL,             -- [{value_type, score, confidence, labelled, evidence_output_ids}], sorted by type
    as_of timestamptz NOT NULL,        -- end of the period measured; an older one never replaces a newer one
    past_return double precision,      -- fraction, e.g. 0.35; NULL when nothing was spent
    value_model_version text NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT value_profile_pkey PRIMARY KEY (programme_id, member_id),
    CONSTRAINT value_profile_member FOREIGN KEY (programme_id, member_id) REFERENCES member
);

-- The last proposal for each member. A promotion consumes it: it stays, so that the same evidence cannot promote twice.
CREATE TABLE tier_proposal (
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    promote_probability double precision NOT NULL,  -- 0 to 1
    output_count integer NOT NULL,
    as_of timestamptz NOT NULL,        -- end of the period measured
    decision_id uuid NOT NULL,         -- measurement's decision
    reason text NOT NULL,
    record_time timestamptz NOT NULL,
    consume_time timestamptz,          -- when it promoted the member; NULL while it is open
    CONSTRAINT tier_proposal_pkey PRIMARY KEY (programme_id, member_id),
    CONSTRAINT tier_proposal_member FOREIGN KEY (programme_id, member_id) REFERENCES member
);
CREATE INDEX tier_proposal_open ON tier_proposal (programme_id, member_id) WHERE consume_time IS NULL;

-- Moves of members between tiers. Append-only.
CREATE TABLE tier_move (
    tier_move_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT tier_move_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    from_tier_id text NOT NULL,
    to_tier_id text NOT NULL,
    reason text NOT NULL,              -- with figures, without personal data
    policy_version integer NOT NULL,
    decision_id uuid NOT NULL,         -- of the proposal that it rests on
    actor text NOT NULL,               -- who had the tiers evaluated
    move_time timestamptz NOT NULL,
    CONSTRAINT tier_move_member FOREIGN KEY (programme_id, member_id) REFERENCES member,
    CONSTRAINT tier_move_policy FOREIGN KEY (programme_id, policy_version) REFERENCES tier_policy
);
CREATE INDEX tier_move_by_member ON tier_move (programme_id, member_id, tier_move_id DESC);
