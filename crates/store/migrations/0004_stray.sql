-- Replicas that run where workers of `scope` work, and are not this database's.
CREATE TABLE stray (
    scope      TEXT   NOT NULL,
    replica    TEXT   NOT NULL,
    since      BIGINT NOT NULL,
    ending     BIGINT NOT NULL,
    stray      TEXT   NOT NULL,
    PRIMARY KEY (scope, replica)
);
