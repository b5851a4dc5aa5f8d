-- What members get when they rise a tier, and what came of each rise.

CREATE TABLE promotion_gift (
    programme_id uuid NOT NULL CONSTRAINT promotion_gift_programme REFERENCES programme,
    tier_id text NOT NULL,
    resource_id uuid NOT NULL CONSTRAINT promotion_gift_resource REFERENCES resource,
    set_by text NOT NULL,
    reason text NOT NULL,
    set_time timestamptz NOT NULL,                  -- rises before it bring nothing
    CONSTRAINT promotion_gift_pkey PRIMARY KEY (programme_id, tier_id)
);

-- Rises to tiers with a gift: one for each member and tier, ever.
CREATE TABLE promotion (
    promotion_id uuid CONSTRAINT promotion_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    from_tier_id text NOT NULL,
    tier_id text NOT NULL,                          -- to which it rose
    resource_id uuid NOT NULL CONSTRAINT promotion_resource REFERENCES resource,
    state text NOT NULL CONSTRAINT promotion_state CHECK (state IN ('PENDING', 'GRANTED', 'REFUSED')),
    grant_id uuid,
    refusal text,                                   -- reason of the last refusal
    move_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT promotion_once UNIQUE (programme_id, member_id, tier_id),
    CONSTRAINT promotion_granted CHECK ((state = 'GRANTED') = (grant_id IS NOT NULL)),
    CONSTRAINT promotion_refused CHECK (state <> 'REFUSED' OR refusal IS NOT NULL)
);
CREATE INDEX promotion_list ON promotion (programme_id, promotion_id);
