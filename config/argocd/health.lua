-- The health of a BurstPool in Argo CD. Bursting, holding and being limited are healthy: they are what a
-- pool is for. Only what a person must mend is degraded.
local health = { status = "Progressing", message = "the operator has not looked at it yet" }

if obj.metadata.deletionTimestamp ~= nil then
  health.message = "its pods, groups and nodes are being removed"
end

if obj.status == nil or obj.status.conditions == nil then
  return health
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end
local ready, stalled = conditions["Ready"], conditions["Stalled"]

if obj.metadata.deletionTimestamp ~= nil then
  if ready ~= nil and ready.message ~= nil and ready.message ~= "" then
    health.message = ready.message
  end
  return health
end

if obj.status.observedGeneration == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  health.message = "the operator has not seen the latest change yet"
  return health
end

if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.message }
end

if ready ~= nil and ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end

if ready ~= nil then
  health.message = ready.message
end
return health
