-- Exports of all that is held of a person. They live for seven days, and end with the person's data.

CREATE TABLE member_export (
    programme_id uuid NOT NULL,
    export_id uuid NOT NULL,           -- UUIDv7
    member_id uuid NOT NULL,           -- of merged ones the one that the others lead to
    member_ids uuid[] NOT NULL,        -- all ids of the person
    actor text NOT NULL,
    request_time timestamptz NOT NULL,
    deadline_time timestamptz NOT NULL, -- until when all should have answered
    expire_time timestamptz NOT NULL,  -- when it is deleted
    CONSTRAINT member_export_pkey PRIMARY KEY (programme_id, export_id)
);
CREATE INDEX member_export_expire ON member_export (expire_time);
CREATE INDEX member_export_of_member ON member_export (programme_id, member_id);

-- Who holds something of the person.
CREATE TABLE member_export_holder (
    programme_id uuid NOT NULL,
    export_id uuid NOT NULL,
    holder text COLLATE "C" NOT NULL,  -- e.g. budget
    part_count integer NOT NULL,       -- 0 before its document is whole
    CONSTRAINT member_export_holder_pkey PRIMARY KEY (programme_id, export_id, holder),
    CONSTRAINT member_export_holder_export FOREIGN KEY (programme_id, export_id) REFERENCES member_export ON DELETE CASCADE
);

CREATE TABLE member_export_part (
    programme_id uuid NOT NULL,
    export_id uuid NOT NULL,
    holder text COLLATE "C" NOT NULL,
    part integer NOT NULL CONSTRAINT member_export_part_positive CHECK (part >= 1),
    content text NOT NULL,             -- personal: JSON, a piece of the holder's document
    CONSTRAINT member_export_part_pkey PRIMARY KEY (programme_id, export_id, holder, part),
    CONSTRAINT member_export_part_holder FOREIGN KEY (programme_id, export_id, holder) REFERENCES member_export_holder ON DELETE CASCADE
);

-- What was posted of a member.
CREATE INDEX webhook_delivery_of_member ON webhook_delivery (member_id);
