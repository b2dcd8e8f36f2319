import { Race } from './race.ts';
import { Disk } from './kept.ts';
import { settle } from './rig.ts';
const lives: any = [[[[{"do":"submit"},3],[{"do":"submit"},0],[{"do":"fail","nth":0},0],[{"do":"submit"},20],[{"do":"token","nth":0},0],[{"do":"cancel","nth":0},0],[{"do":"submit"},0],[{"do":"cancel","nth":0},0]],"orderly"]];
for (let time=0; time<200; time++) {
const disk = new Disk();
const race = new Race({slots:1, features:{deterministic:true}, disk});
await race.rig.ready();
const lines: any[] = [];
const id='0198c0de-0000-7000-8000-000000000001';
for (const [steps, how] of lives) {
  for (const [step, pause] of steps) { race.take(step); await settle(pause);
    const r = race.rig.orchestrator.record(id);
    lines.push([step.do, race.ids.length, r?.state, r?.context.lease, r?.context.usage.tokens_out, r?.context.outcome, race.rig.engines.get('scripted')!.live.length]); }
  const old = race.rig;
  await race.restart(how);
  lines.push(['old', old.record(id).state, old.record(id).context.usage.tokens_out]);
  const r = race.rig.record(id);
  lines.push([how, r.state, r.context.usage.tokens_out, r.context.outcome]);
}
try { await race.finish(() => settle(30)); await race.check(); } catch (error) { console.log(time, String(error).slice(0,200)); console.log(lines); console.log((await disk.events(id)).map(e=>e.type+JSON.stringify(e.data)), race.rig.record(id).context, race.rig.observations.filter((o: any)=>o.record?.id===id).map((o: any)=>[o.type,o.from,o.to])); break; }
}
