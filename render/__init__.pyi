from orbit4d.render.dataset.render_assets import render_assets as render_assets
from orbit4d.render.dataset.summary import RenderSummary as RenderSummary
from orbit4d.render.fleet.settings import FleetSettings as FleetSettings
from orbit4d.render.planning.light_settings import LightSettings as LightSettings
from orbit4d.render.planning.settings import EngineSettings as EngineSettings
from orbit4d.render.planning.settings import RenderSettings as RenderSettings
from orbit4d.render.planning.settings import preset as preset
from orbit4d.render.planning.views import plan_action as plan_action
