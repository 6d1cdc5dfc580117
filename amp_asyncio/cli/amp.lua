-- AMP, the Asynchronous Messaging Protocol, for Wireshark and tshark.
--
-- Put it into the personal Lua plugins folder (Help, About, Folders), or: tshark -X lua_script:amp.lua
-- Without a port, choose it with "Decode As...", or: tshark -d tcp.port==1234,asyncamp

local PORTS = ""
local VERSION = 1

local LONGEST_KEY = 255
local FULL_PIECE = 65535

local amp = Proto("asyncamp", "Asynchronous Messaging Protocol")

local field = {
  kind = ProtoField.string("asyncamp.kind", "Kind"),
  command = ProtoField.string("asyncamp.command", "Command"),
  ask = ProtoField.string("asyncamp.ask", "Tag of the question"),
  answer = ProtoField.string("asyncamp.answer", "Answer to"),
  error = ProtoField.string("asyncamp.error", "Error for"),
  code = ProtoField.string("asyncamp.error_code", "Error code"),
  description = ProtoField.string("asyncamp.error_description", "Error description"),
  pair = ProtoField.none("asyncamp.pair", "Pair"),
  key = ProtoField.string("asyncamp.key", "Key"),
  value = ProtoField.bytes("asyncamp.value", "Value"),
  answered_in = ProtoField.framenum("asyncamp.answered_in", "Answered in", base.NONE, frametype.RESPONSE),
  asked_in = ProtoField.framenum("asyncamp.asked_in", "Asked in", base.NONE, frametype.REQUEST),
  answers = ProtoField.string("asyncamp.answers", "Command of the question"),
  time = ProtoField.relative_time("asyncamp.time", "Time since the question"),
}
for _, each in pairs(field) do
  table.insert(amp.fields, each)
end

local function mark(name, text, group, severity)
  return ProtoExpert.new("asyncamp." .. name, text, group, severity)
end
local malformed, severe = expert.group.MALFORMED, expert.severity.ERROR
local marked = {
  not_amp = mark("not_amp", "Not AMP", malformed, severe),
  incomplete = mark("incomplete", "The bytes end in the middle of a box", malformed, severe),
  invalid = mark("invalid", "Invalid box", malformed, severe),
  twice = mark("twice", "Key came twice", expert.group.PROTOCOL, expert.severity.WARN),
  failed = mark("failed", "Error", expert.group.RESPONSE_CODE, expert.severity.NOTE),
}
for _, each in pairs(marked) do
  table.insert(amp.experts, each)
end

amp.prefs.version = Pref.enum(
  "Version", VERSION, "In version 2, a value may have more than 65,535 bytes",
  { { 1, "1", 1 }, { 2, "2", 2 } }, false
)

local stream_of = Field.new("tcp.stream")

-- The questions without an answer: by stream, sender and tag. What belongs together: by box.
local open, answered_by, asked_by = {}, {}, {}
function amp.init()
  open, answered_by, asked_by = {}, {}, {}
end

-- Reads the value at `position` of `tvb`; returns its range and the position after it, or nothing if it
-- is not complete.
local function read_value(tvb, position)
  local size, joined = tvb:len(), nil
  while position + 2 <= size do
    local length = tvb(position, 2):uint()
    local after = position + 2 + length
    if after > size then
      return nil
    end
    local full = amp.prefs.version == 2 and length == FULL_PIECE
    local whole = length > 0 and tvb(position + 2, length) or nil
    position = after
    if not full and joined == nil then
      return whole, position
    end
    joined = joined or ByteArray.new()
    if whole then
      joined:append(whole:bytes())
    end
    if not full then
      return joined:tvb("Value of " .. joined:len() .. " bytes")(), position
    end
  end
  return nil
end

-- Reads the box at `start` of `tvb`: its pairs, where it ends, and why it does not.
local function read_box(tvb, start)
  local box = { start = start, pairs = {}, by_key = {}, twice = {} }
  local position, size = start, tvb:len()
  while true do
    box.after = position
    if position < size and tvb(position, 1):uint() > 0 then
      box.broken = "not_amp"
      return box
    end
    if position + 2 > size then
      box.broken = "incomplete"
      return box
    end
    local length = tvb(position + 1, 1):uint()
    if length == 0 then
      box.after = position + 2
      return box
    end
    local value_at = position + 2 + length
    local value, after = nil, nil
    if value_at <= size then
      value, after = read_value(tvb, value_at)
    end
    if after == nil then
      box.broken = "incomplete"
      return box
    end
    local key = tvb(position + 2, length)
    local name = key:string(ENC_UTF_8)
    if box.by_key[name] then
      table.insert(box.twice, name)
    end
    local pair = { name = name, key = key, value = value, start = position, after = after }
    table.insert(box.pairs, pair)
    box.by_key[name] = pair
    position = after
  end
end

local function text(box, key)
  local pair = box.by_key[key]
  if pair == nil then
    return nil
  end
  return pair.value and pair.value:string(ENC_UTF_8) or ""
end

local KINDS = {
  { key = "_answer", kind = "answer", told = { _answer = field.answer } },
  {
    key = "_error",
    kind = "error",
    told = { _error = field.error, _error_code = field.code, _error_description = field.description },
  },
  { key = "_command", kind = "question", told = { _command = field.command, _ask = field.ask } },
}

local function kind_of(box)
  for _, kind in ipairs(KINDS) do
    if box.by_key[kind.key] then
      return kind.kind, kind.told
    end
  end
  return "unknown", {}
end

-- What the box says of itself, in a few words.
local function summary(box, kind)
  if kind == "question" then
    local tag = text(box, "_ask")
    return text(box, "_command") .. (tag and (" [" .. tag .. "]") or " (no answer wanted)")
  elseif kind == "answer" then
    return "answer [" .. text(box, "_answer") .. "]"
  elseif kind == "error" then
    return "error [" .. text(box, "_error") .. "] " .. (text(box, "_error_code") or "")
  end
  return box.broken == "not_amp" and "not AMP" or "box"
end

-- Notes which answer belongs to which question, when a frame is seen for the first time.
local function match(box, kind, pinfo)
  local id = pinfo.number .. ":" .. box.start
  if pinfo.visited then
    return id
  end
  local info = stream_of()
  local stream = info and info.value or -1
  if kind == "question" and box.by_key._ask then
    open[stream .. ":" .. pinfo.src_port .. ":" .. text(box, "_ask")] =
      { id = id, number = pinfo.number, at = pinfo.rel_ts, command = text(box, "_command") }
  elseif kind == "answer" or kind == "error" then
    local tag = text(box, "_answer") or text(box, "_error")
    local key = stream .. ":" .. pinfo.dst_port .. ":" .. tag
    local question = open[key]
    if question then
      open[key] = nil
      asked_by[id] = question
      answered_by[question.id] = pinfo.number
    end
  end
  return id
end

local function add_generated(tree, each, value)
  tree:add(each, value):set_generated(true)
end

local function show_box(box, tvb, pinfo, tree)
  local kind, told = kind_of(box)
  local what = summary(box, kind)
  local label = "AMP " .. (kind == "question" and "question " or "") .. what
  local shown = tree:add(amp, tvb(box.start, box.after - box.start), label)
  shown:add(field.kind, kind):set_generated(true)
  for _, pair in ipairs(box.pairs) do
    local range = tvb(pair.start, pair.after - pair.start)
    if told[pair.name] and pair == box.by_key[pair.name] then
      shown:add(told[pair.name], pair.value or range, text(box, pair.name))
    else
      local value = pair.value and pair.value:string(ENC_UTF_8) or ""
      local item = shown:add(field.pair, range)
      item:set_text(pair.name .. ": " .. value:sub(1, 64))
      item:add(field.key, pair.key, pair.name)
      item:add(field.value, pair.value or tvb(pair.start, 0))
    end
  end
  if box.broken then
    shown:add_proto_expert_info(marked[box.broken])
  elseif kind == "unknown" then
    local why = #box.pairs == 0 and "an empty box" or "neither a question nor an answer nor an error"
    shown:add_proto_expert_info(marked.invalid, why)
  elseif kind == "error" then
    for _, key in ipairs({ "_error_code", "_error_description" }) do
      if not box.by_key[key] then
        shown:add_proto_expert_info(marked.invalid, "an error without " .. key)
      end
    end
    shown:add_proto_expert_info(marked.failed, text(box, "_error_code") or "")
  end
  for _, name in ipairs(box.twice) do
    shown:add_proto_expert_info(marked.twice, name .. " came twice; the later value counts")
  end
  local id = match(box, kind, pinfo)
  if answered_by[id] then
    add_generated(shown, field.answered_in, answered_by[id])
  end
  local question = asked_by[id]
  if question then
    what = what .. " to " .. question.command
    add_generated(shown, field.asked_in, question.number)
    add_generated(shown, field.answers, question.command)
    local taken = pinfo.rel_ts - question.at
    local seconds = math.floor(taken)
    add_generated(shown, field.time, NSTime.new(seconds, math.floor((taken - seconds) * 1e9)))
  end
  return what
end

-- Whether TLS begins here, as it does after the answer to StartTLS.
local function is_tls(tvb, position)
  if position + 2 > tvb:len() then
    return false
  end
  local kind = tvb(position, 1):uint()
  return kind >= 0x14 and kind <= 0x17 and tvb(position + 1, 1):uint() == 3
end

function amp.dissector(tvb, pinfo, tree)
  local size, position, summaries = tvb:len(), 0, {}
  while position < size do
    if is_tls(tvb, position) then
      local before = pinfo.desegment_len
      Dissector.get("tls"):call(tvb(position):tvb(), pinfo, tree)
      if pinfo.desegment_len ~= before then
        pinfo.desegment_offset = pinfo.desegment_offset + position
      end
      return size
    end
    local box = read_box(tvb, position)
    if box.broken == "incomplete" and pinfo.can_desegment > 0 then
      pinfo.desegment_offset = position
      pinfo.desegment_len = DESEGMENT_ONE_MORE_SEGMENT
      break
    end
    if box.broken then
      box.after = size
    end
    table.insert(summaries, show_box(box, tvb, pinfo, tree))
    position = box.after
  end
  pinfo.cols.protocol = "AMP"
  if #summaries > 0 then
    pinfo.cols.info = table.concat(summaries, ", ")
  end
  return size
end

for _, name in ipairs({ "tcp.port", "tls.port" }) do
  local there, ports = pcall(DissectorTable.get, name)
  if there then
    if PORTS ~= "" then
      ports:add(PORTS, amp)
    end
    ports:add_for_decode_as(amp)
  end
end
