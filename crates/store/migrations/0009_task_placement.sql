-- The placement of the task's deployment, so that a worker reads its own due tasks from an index. NULL if the deployment is
-- gone, or if an older version queued the task.
ALTER TABLE task ADD COLUMN placement TEXT;
UPDATE task SET placement = (SELECT placement FROM deployment WHERE id = task.deployment);
CREATE INDEX task_by_placement ON task (placement, due_at);
