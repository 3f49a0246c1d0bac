addEventListener("beforeprint",()=>document.querySelectorAll("details").forEach(d=>{
d.dataset.shut=d.open?"":"1";d.open=true}));
addEventListener("afterprint",()=>document.querySelectorAll("details").forEach(d=>{if(d.dataset.shut)d.open=false}));
