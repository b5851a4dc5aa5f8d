-- What the registry's feed told of members, kept by the services that read it. Nothing of it is personal, all of it can be told twice.

-- Members of whom something was told. One that is not here takes part and withdrew nothing.
CREATE TABLE followed_member (
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    suspended boolean NOT NULL,
    withdrawn text[] NOT NULL,         -- purposes for which it does not consent any more, e.g. PROFILING
    version bigint NOT NULL,           -- the member's when it was told: what is older is not heeded; 0 when nobody said
    CONSTRAINT followed_member_pkey PRIMARY KEY (programme_id, member_id)
);

-- The last merge of each member that ever was the loser of one.
CREATE TABLE followed_merge (
    programme_id uuid NOT NULL,
    loser_id uuid NOT NULL,
    winner_id uuid NOT NULL,           -- may be merged in turn
    merge_id uuid NOT NULL,            -- UUIDv7: what was told of an earlier merge is not heeded; nil when nobody said which
    undone boolean NOT NULL,
    CONSTRAINT followed_merge_pkey PRIMARY KEY (programme_id, loser_id)
);
CREATE INDEX followed_merge_by_winner ON followed_merge (programme_id, winner_id) WHERE NOT undone;

-- Where the ids of merged members lead in the end; follows from followed_merge.
CREATE TABLE member_alias (
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    leads_to uuid NOT NULL,            -- no alias itself
    CONSTRAINT member_alias_pkey PRIMARY KEY (programme_id, member_id)
);
CREATE INDEX member_alias_by_end ON member_alias (programme_id, leads_to);
