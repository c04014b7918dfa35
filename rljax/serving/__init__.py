"""The playground: a page where a policy is asked again and again, and an interface for clients of OpenAI's protocol.

streaming.py   attempts, a few columns at a time            shapes.py     few shapes, so that few programs are compiled
engine.py      the queue of the device                      aside.py      what needs no device: another thread does it
programs.py    compiled programs
policies.py    checkpoints of runs, model folders, copies   questions.py  a problem or a text, as ids
asking.py      the request of the page for attempts         verdicts.py   right or wrong, and why
groups.py      what attempts say together, advantages       learning.py   one policy-gradient step in a copy
pieces.py      text, token by token
openai_api.py  /v1, for clients of OpenAI's protocol        openai_shapes.py  its JSON
completions.py its work on the device                       scoring.py    the log-probabilities of a text
conversations.py  a chat as ids                             records.py    what a run has measured so far
default_policy.py  the run that is trained where there is none            server.py  the server as a thread
app.py         all addresses                                page_api.py   those of the page
http.py        what all addresses share                     fields.py     fields of a request
state.py       what a server holds
static/        the page: HTML, CSS and JavaScript, as they are
"""
