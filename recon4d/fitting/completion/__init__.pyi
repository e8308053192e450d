from orbit4d.recon4d.fitting.completion.slot import Completed as Completed
from orbit4d.recon4d.fitting.completion.slot import Completer as Completer
from orbit4d.recon4d.fitting.completion.slot import CompletionSettings as CompletionSettings
from orbit4d.recon4d.fitting.completion.slot import completer as completer
from orbit4d.recon4d.fitting.completion.slot import register as register
