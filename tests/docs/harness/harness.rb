require_relative "snippet"

$stdin.each_line(chomp: true) do |line|
  secret, webhook_id, timestamp, signatures, body = line.split("\t", -1)
  puts genuine?(secret, webhook_id, timestamp, signatures, body.unpack1("m")) ? "yes" : "no"
end
