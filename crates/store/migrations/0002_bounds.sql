-- What grows with time and not with what there is gets an end: see `prune`.

-- Deployments that are gone, while something still tells of them.
CREATE TABLE gone (
    deployment BIGINT NOT NULL PRIMARY KEY,
    at         BIGINT NOT NULL
);
CREATE INDEX gone_by_time ON gone (at);
INSERT INTO gone (deployment, at)
SELECT route.deployment, COALESCE((SELECT MAX(event.at) FROM event WHERE event.deployment = route.deployment), 0)
FROM route WHERE route.route IS NULL;

CREATE INDEX route_tombstone ON route (version) WHERE route IS NULL;

-- The newest version whose tombstone is no longer kept.
INSERT INTO counter (name, value) VALUES ('route_pruned', 0);
